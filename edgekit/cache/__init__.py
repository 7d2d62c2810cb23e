"""The cache on disk: candidates and measurements by key, with integrity checks."""
