"""Claims of the pretraining wing."""
