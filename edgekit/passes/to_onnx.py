"""A .tflite file as an ONNX graph."""

from __future__ import annotations

from pathlib import Path

from edgekit.bridge.flatbuffer import read_lite
from edgekit.bridge.lifting import lift
from edgekit.errors import PassRefused, UserError
from edgekit.graphs.onnx_file import save
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.growth import check_integers, note_size
from edgekit.recipe import ToOnnx


def to_onnx(model: Model, settings: ToOnnx, work: Work) -> Path:
    """Write the graph for onnxruntime; every pass on ONNX graphs can go on from there.

    Raises:
        PassRefused: an operator has no counterpart, or the file holds what is not read (sparse
            tensors, say); names it.
    """
    del settings
    try:
        graph = read_lite(model.path.read_bytes())
    except UserError as error:  # litert takes it: no fault of the file's
        raise PassRefused(error.message, hint=error.hint) from error
    proto = lift(graph)
    target = work.scratch / "lifted.onnx"
    save(proto, target)
    check_integers(model, target)
    note_size(model, target, work)
    return target
