"""Pass that converts a .tflite file to an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.compression.checks.conversion_growth import check_integers, note_size, note_time
from edgekit.compression.pass_specs import Work
from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
from edgekit.errors import PassRefused, UserError
from edgekit.model import Model
from edgekit.onnx_graph.io import save
from edgekit.onnx_graph.states import read_states
from edgekit.pass_settings import ToOnnx
from edgekit.tflite.flatbuffer import read_lite
from edgekit.tflite.ir import LiteGraph
from edgekit.tflite.signature import read_shapes_at


def to_onnx(model: Model, settings: ToOnnx, work: Work) -> Path:
    """Convert a .tflite file to ONNX; every pass on ONNX graphs can go on from there.

    Raises:
        PassRefused: an operator has no counterpart, or the file holds unsupported data (such as
            sparse tensors), which the text names.
    """
    try:
        graph = _read_graph(model, dict(settings.dims))
    except UserError as error:  # litert runs the file, so the file is not at fault
        raise PassRefused(error.message, hint=error.hint) from error
    proto = convert_to_onnx(graph)
    target = work.scratch / "lifted.onnx"
    save(proto, target)
    for state in read_states(proto):
        start = "non-zero values, recorded in the file" if state.initial.any() else "zeros"
        work.note(
            f"variable {state.input} became the input {state.input} and the output "
            f"{state.output}; feed the output back to the input, starting with {start}"
        )
    check_integers(model, target)
    note_size(model, target, work)
    note_time(model, target, work)
    return target


def _read_graph(model: Model, dims: Mapping[str, int]) -> LiteGraph:
    """Read a graph; inputs with placeholder sizes get the sizes of ``dims``.

    Raises:
        PassRefused: such a size is not given, or an input or output has no name.
    """
    data = model.path.read_bytes()
    graph = read_lite(data)
    for specs, found in (
        (model.signature.inputs, graph.inputs),
        (model.signature.outputs, graph.outputs),
    ):
        if {spec.name for spec in specs} != found.keys() or "" in found:
            raise PassRefused(
                "not every input and output of the file has a name",
                hint="export it with a signature that names them",
            )
    sizes: dict[str, list[int]] = {}
    for spec in model.signature.inputs:
        tensor = graph.inputs[spec.name]
        shape = list(tensor.shape)
        placeholders = [axis for axis, size in enumerate(spec.shape) if not isinstance(size, int)]
        for axis in (each for each in placeholders if shape[each] == 1):
            name = spec.dimension(axis)
            if name not in dims:
                raise PassRefused(
                    f"input {spec.name} {shape} must be resized, but its size is not given",
                    hint=f"give samples, or --dims {name}=SIZE",
                )
            shape[axis] = dims[name]
            sizes[tensor.name] = shape
    return read_lite(data, read_shapes_at(model.path, sizes)) if sizes else graph
