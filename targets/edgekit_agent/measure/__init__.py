"""Measurement of models and of the device."""
