"""How a pair of pictures becomes questions to a juror, and how its answers become a verdict."""
