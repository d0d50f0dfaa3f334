"""Claims of the forensics wing."""
