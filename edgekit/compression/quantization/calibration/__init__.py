"""Calibration of activation ranges: observers, and the errors of their ranges."""
