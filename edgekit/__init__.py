"""edgekit: takes a trained model and makes it run, proven, on a small device."""

__version__ = "0.1.0"
