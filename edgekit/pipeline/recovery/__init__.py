"""Recovery of accuracy: the original of a compressed model, and the terms of learning."""
