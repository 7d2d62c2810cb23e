"""Least-squares reconstruction of layers after a change of the graph."""
