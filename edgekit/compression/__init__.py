"""Compression passes, their settings and the checks of their results."""
