"""Conversion of ONNX graphs to TFLite, one rule for each operator."""
