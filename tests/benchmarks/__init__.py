"""Benchmarks: ratios measured in one run, printed; nothing here is a test."""
