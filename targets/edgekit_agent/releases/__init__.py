"""Releases on a device: transfer, installation, switch and removal."""
