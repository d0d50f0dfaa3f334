"""What the verbs do with files by the systems of the generation wing."""
