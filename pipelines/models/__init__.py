"""Torch modules and the worlds they live in."""
