"""Proofs that a hidden model was changed as prescribed: commitments, an exact check, spot checks, a SNARK backend."""
