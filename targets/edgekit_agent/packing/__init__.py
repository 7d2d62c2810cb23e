"""Expansion of packed files."""
