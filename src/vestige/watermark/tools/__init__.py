"""What the systems of this wing do with a user's files, one module for each."""
