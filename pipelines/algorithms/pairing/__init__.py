"""Which samples of a prompt are compared."""
