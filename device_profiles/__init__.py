"""Device profiles, one TOML file per device: hardware, runtimes and budget."""
