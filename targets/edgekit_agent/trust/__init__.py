"""Trusted keys and signed statements."""
