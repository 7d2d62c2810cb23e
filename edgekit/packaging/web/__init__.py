"""Packages of apps for browsers, and the server that offers them in a local network."""
