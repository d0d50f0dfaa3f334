"""Decoding pictures strictly: which way up, whether all of their samples are there, raw files and animations."""
