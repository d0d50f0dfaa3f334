"""``python -m vestige``."""

from vestige.app.cli import main

main()
