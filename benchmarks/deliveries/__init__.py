"""Broken deliveries: pushes that are cut, killed or damaged, and power cuts of a device."""
