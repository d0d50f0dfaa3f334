"""Claims of the privacy wing."""
