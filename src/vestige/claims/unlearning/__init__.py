"""Claims of the unlearning wing."""
