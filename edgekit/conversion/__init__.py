"""Conversion between ONNX and TFLite by one common graph representation."""
