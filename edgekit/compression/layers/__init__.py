"""Stored weights of a graph, and the operators that read them."""
