"""Claims of the restoration wing."""
