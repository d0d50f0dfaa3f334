"""Subjects, findings, roles, the catalogue, file I/O, keys, errors and progress. Imports no model code."""
