"""ONNX graphs as differentiable TensorFlow functions."""
