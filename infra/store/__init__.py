"""Artifacts on disk: records, tables, views, and what may be removed."""
