"""Losses on preferences: one method a file, composed from the pair algebra of `pairwise`."""
