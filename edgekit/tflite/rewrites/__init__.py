"""Rewrites of TFLite graphs: fusion, folding and quantization."""
