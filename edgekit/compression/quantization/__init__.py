"""Quantization: static, dynamic, weight-only and float16."""
