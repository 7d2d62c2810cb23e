"""Benchmarks of learning: time of a step, and accuracy before and after."""
