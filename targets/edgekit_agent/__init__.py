"""Agent: the part of edgekit that runs on the device; the host measures with the same code.

Importing this package needs the standard library of Python 3.9 and nothing else. A runtime and
numpy are imported by the worker process that runs a model, and only there.
"""
