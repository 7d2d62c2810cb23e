"""Confidence intervals of the loss of a candidate against the original."""
