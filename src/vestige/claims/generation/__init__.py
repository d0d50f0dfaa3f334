"""Claims of the generation wing."""
