"""The half of edgekit that runs on the device; the host imports the same code for its own measuring.

Importing this package needs the standard library of Python 3.9 and nothing else. A runtime and
numpy are imported by the worker process that runs a model, and only there.
"""

PROTOCOL = 1
