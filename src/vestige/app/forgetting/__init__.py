"""``vestige erase`` on models: the run, what is told, the page and its plots."""
