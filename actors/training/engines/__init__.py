"""Engines: ways to ask a juror and to train a model."""
