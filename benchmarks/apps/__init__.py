"""Apps on devices: installations that are killed."""
