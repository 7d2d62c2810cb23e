"""Checks of the result of a pass against the original model."""
