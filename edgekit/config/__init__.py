"""Settings files: edgekit.toml of a project, and device profiles."""
