"""Paths between data and noise, and the steps along them."""
