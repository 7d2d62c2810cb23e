"""Rewrites of ONNX graphs that keep their outputs."""
