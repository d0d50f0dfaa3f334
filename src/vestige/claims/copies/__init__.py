"""Claims of the copies wing."""
