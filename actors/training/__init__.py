"""Training: the trainer, its options, where it runs and where its curves go."""
