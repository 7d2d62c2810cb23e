"""Metrics that code of the user computes: loading, calls, and rows of samples."""
