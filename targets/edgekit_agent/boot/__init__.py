"""Start at boot of the watcher that confirms new releases."""
