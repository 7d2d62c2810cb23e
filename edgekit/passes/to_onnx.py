"""A .tflite file as an ONNX graph."""

from __future__ import annotations

from pathlib import Path

from edgekit.bridge.flatbuffer import read_lite
from edgekit.bridge.lifting import lift
from edgekit.graphs.onnx_file import save
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.recipe import ToOnnx


def to_onnx(model: Model, settings: ToOnnx, work: Work) -> Path:
    """Write the graph for onnxruntime; every pass on ONNX graphs can go on from there.

    Raises:
        PassRefused: an operator has no counterpart; names it.
    """
    del settings
    proto = lift(read_lite(model.path.read_bytes()))
    target = work.scratch / "lifted.onnx"
    save(proto, target)
    return target
