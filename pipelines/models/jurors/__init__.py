"""Jurors: what compares two pictures or clips of one prompt."""
