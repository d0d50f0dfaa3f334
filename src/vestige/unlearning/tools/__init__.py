"""What the systems of this wing do with the files of a user, one module a system."""
