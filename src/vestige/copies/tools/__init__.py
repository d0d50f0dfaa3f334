"""What systems of this wing do with files, a module a system."""
