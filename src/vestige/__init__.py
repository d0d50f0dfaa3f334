"""vestige."""
