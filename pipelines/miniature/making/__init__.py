"""How the shipped generators and jurors are trained from nothing."""
