"""Proposal of metric, post-processing and preprocessing from a model and its samples."""
