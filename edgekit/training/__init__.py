"""Training of converted graphs with gradients."""
