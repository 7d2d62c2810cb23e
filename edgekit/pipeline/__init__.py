"""Build of a model for a device: search, measurement, gate and bundle."""
