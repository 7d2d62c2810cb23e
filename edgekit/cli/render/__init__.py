"""Results as text for a terminal and as plain data for JSON."""
