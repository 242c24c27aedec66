"""When things run: thin commands."""
