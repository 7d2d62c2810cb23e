"""Models of other tools as ONNX: one file for each tool."""
