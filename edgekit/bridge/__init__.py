"""The bridge: one graph for two runtimes, ONNX on one side and TFLite on the other."""
