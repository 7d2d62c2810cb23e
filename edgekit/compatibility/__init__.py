"""Operators and runtimes that a device profile allows."""
