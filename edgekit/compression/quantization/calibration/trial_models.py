"""Temporary 8-bit versions of a model, and the errors of their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import ModelProto, ValueInfoProto

from edgekit.compression.checks.output_errors import FloatOutputs, OutputErrors
from edgekit.compression.quantization.affine import Affine
from edgekit.compression.quantization.bias_correction import Shifts, apply_shifts
from edgekit.compression.quantization.qdq_writer import QdqWriter
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.output_parts import find_output_parts
from edgekit.onnx_graph.qdq_placement import plan_placement

_FILE = "trial.onnx"


@dataclass(frozen=True, kw_only=True)
class Version:
    """Choices that make an 8-bit version of a model.

    Args:
        parameters: of every activation that becomes 8-bit.
        shifts: bias corrections.
        in_float: first outputs of the nodes that compute in float.
    """

    parameters: Mapping[str, Affine]
    shifts: Shifts = field(default_factory=dict)
    in_float: frozenset[str] = frozenset()


def write_version(index: GraphIndex, version: Version, largest: int) -> ModelProto:
    """Return a copy of the model in 8 bits; weights that are not quantized stay offloaded.

    Args:
        index: the index of the float model; not changed.
        version: the choices.
        largest: magnitude of the largest integer weight.
    """
    copy = ModelProto()
    copy.CopyFrom(index.proto)
    edited = GraphIndex(copy, index.folder)
    apply_shifts(edited, plan_placement(edited, version.in_float), version.shifts)
    edited = GraphIndex(copy, index.folder)
    placement = plan_placement(edited, version.in_float)
    parameters = {name: version.parameters[name] for name in placement.values}
    return QdqWriter(edited, placement, parameters, largest=largest).write()


def measure_version(
    index: GraphIndex, version: Version, *, largest: int, reference: FloatOutputs
) -> OutputErrors:
    """Write a version of the model to a temporary file, and compare its outputs with float.

    Args:
        index: the float model, its weights offloaded.
        version: the choices.
        largest: magnitude of the largest integer weight.
        reference: the outputs of the float model.
    """
    if index.folder is None:
        raise ValueError("the weights are not offloaded")
    path = index.folder / _FILE
    made = write_version(index, version, largest)
    judged = find_output_parts(made)
    known = {v.name for v in (*made.graph.output, *made.graph.input)}
    made.graph.output.extend(
        ValueInfoProto(name=n) for n in dict.fromkeys(judged) if n not in known
    )
    path.write_bytes(made.SerializeToString())
    try:
        return reference.errors(path, judged)
    finally:
        path.unlink()
