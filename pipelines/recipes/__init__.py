"""Functions that build a DAG; the keyword arguments of each are the flags of the command line."""
