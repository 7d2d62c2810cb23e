"""Random changes of unlabelled samples, chosen by input kind and by the answers of a model."""
