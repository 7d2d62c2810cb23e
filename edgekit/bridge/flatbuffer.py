"""Graphs as .tflite files and back: the FlatBuffers schema of TensorFlow Lite."""

from __future__ import annotations

from edgekit.bridge.reading import read_lite
from edgekit.bridge.writing import write_lite

__all__ = ["read_lite", "write_lite"]
