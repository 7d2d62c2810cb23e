"""Functions of the public API, one module per concern; ``edgekit`` exports them by name."""
