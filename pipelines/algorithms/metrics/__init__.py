"""Measures with their uncertainty, and the gate that guards them."""
