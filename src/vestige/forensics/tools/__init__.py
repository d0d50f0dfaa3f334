"""What the systems of this wing do with files, a module each, with a function for every verb."""
