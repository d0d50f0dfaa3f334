"""Files of models, read without running anything in them: what each format holds and whether loading it runs code."""
