"""Apps on devices: installations that are killed, or end with the power of the device."""
