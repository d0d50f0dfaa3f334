"""The starter kit: small files that every command can be tried on, written offline in seconds.

Each module here has a function ``write(folder) -> list[str]`` that adds its files to the kit and returns their names.
"""
