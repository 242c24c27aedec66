"""What recipes share; no recipe itself."""
