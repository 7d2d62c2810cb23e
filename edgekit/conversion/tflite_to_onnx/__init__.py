"""Conversion of TFLite graphs to ONNX, one rule for each operator."""
