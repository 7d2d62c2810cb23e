"""Model files: reading, checking, and what their graphs hold."""
