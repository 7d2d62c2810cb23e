"""One TOML file per device: what it is, what it can run, what a model on it may cost."""
