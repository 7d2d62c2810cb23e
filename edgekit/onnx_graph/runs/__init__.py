"""Runs of ONNX graphs that observe values inside them."""
