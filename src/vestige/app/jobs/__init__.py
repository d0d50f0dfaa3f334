"""Many files: batches, workers, resuming."""
