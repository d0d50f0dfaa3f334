"""Claims of the watermark wing."""
