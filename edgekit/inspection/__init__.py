"""Inspection of a model: operators, cost, and channels that can be pruned."""
