"""The HTML report of a build, its plots and tables."""
