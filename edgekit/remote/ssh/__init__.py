"""SSH connections as OpenSSH configures them."""
