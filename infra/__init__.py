"""Where things run and are kept. Knows nothing of pictures or models."""
