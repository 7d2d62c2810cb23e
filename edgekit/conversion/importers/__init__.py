"""Conversion of models of other tools (Keras, torch, scikit-learn) to ONNX."""
