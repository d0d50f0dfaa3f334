"""Protocols, claims and the store of recorded results."""
