"""ONNX and TFLite model files: reading, checking, graph analysis and graph rewriting."""
