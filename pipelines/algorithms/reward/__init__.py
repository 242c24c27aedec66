"""Losses and accuracies of reward models."""
