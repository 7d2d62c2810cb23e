"""Reader and writer of .tflite files (the FlatBuffers schema of TensorFlow Lite)."""

from __future__ import annotations

from edgekit.tflite.reader import read_lite
from edgekit.tflite.writer import write_lite

__all__ = ["read_lite", "write_lite"]
