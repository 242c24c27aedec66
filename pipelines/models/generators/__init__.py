"""Generators: prompts and seeds to pictures and clips; one interface, and a file for each implementation."""
