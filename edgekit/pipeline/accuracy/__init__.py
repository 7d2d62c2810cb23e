"""Scoring of candidates and comparison of their accuracy with that of the original."""
