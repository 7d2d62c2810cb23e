"""Dimensions without a size: those that a file leaves open, and those it states as 0 or -1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import GraphProto, TensorShapeProto, ValueInfoProto

from edgekit.model import name_dimension


def clear_unsized(graphs: Iterable[GraphProto]) -> None:
    """Free the dimensions that graphs state as 0 or less, as Paddle writes those of any size.

    Stored tensors may be empty, and stay so.
    """
    for graph in graphs:
        stored = {tensor.name for tensor in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.name not in stored:
                for dim in _dimensions(value):
                    if dim.HasField("dim_value") and dim.dim_value <= 0:
                        dim.Clear()


def states_empty_input(graph: GraphProto) -> bool:
    """Whether a graph states an input dimension as 0, to which a runtime holds what is fed."""
    stored = {tensor.name for tensor in graph.initializer}
    return any(
        dim.HasField("dim_value") and dim.dim_value == 0
        for value in graph.input
        if value.name not in stored
        for dim in _dimensions(value)
    )


def size_dimensions(value: ValueInfoProto, dims: Mapping[str, int]) -> None:
    """Give the free dimensions of a value their sizes, in place; those without one become 1."""
    for axis, dim in enumerate(_dimensions(value)):
        if not dim.HasField("dim_value"):
            dim.dim_value = dims.get(name_dimension(value.name, axis, dim.dim_param), 1)


def _dimensions(value: ValueInfoProto) -> list[TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)
