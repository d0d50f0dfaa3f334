"""Reports of ``vestige find``: text, JSON and HTML."""
