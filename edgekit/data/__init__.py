"""Samples: files of every kind, input settings, and state sequences."""
