"""Stages that only the miniature world has: training what is shipped."""
