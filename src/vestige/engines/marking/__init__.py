"""Learned image marks: what an embedder and its reader share, whatever their networks are."""
