"""Signing keys of the user, and signatures of releases and permits."""
