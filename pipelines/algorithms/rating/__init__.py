"""Strengths of generators from the outcomes of comparisons."""
