"""Builds of several models that a function of the user combines to one answer."""
