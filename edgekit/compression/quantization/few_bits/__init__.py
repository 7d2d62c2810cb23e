"""Weight-only quantization to few bits: GPTQ, grids and bit allocation."""
