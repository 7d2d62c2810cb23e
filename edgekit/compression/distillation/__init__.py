"""Knowledge distillation: a compressed model learns the outputs of the original model."""
