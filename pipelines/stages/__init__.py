"""What is done, one file a node: typed stages with their options."""
