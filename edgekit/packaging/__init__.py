"""Packages: models, runtime and code of an app in one file that installs without a network."""
