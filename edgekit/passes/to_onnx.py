"""A .tflite file as an ONNX graph."""

from __future__ import annotations

from pathlib import Path

from edgekit.bridge.flatbuffer import read_lite
from edgekit.bridge.lifting import lift
from edgekit.errors import PassRefused, UserError
from edgekit.graphs.onnx_file import save
from edgekit.graphs.states import states_of
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
    for state in states_of(proto):
        start = "non-zero values, recorded in the file" if state.initial.any() else "zeros"
        work.note(
            f"variable {state.input} is the input {state.input} and the output {state.output}, "
            f"to be fed back; it begins with {start}"
        )
    check_integers(model, target)
    note_size(model, target, work)
    return target
