"""Metrics of real models on a device, compared with the same metrics on this machine."""
