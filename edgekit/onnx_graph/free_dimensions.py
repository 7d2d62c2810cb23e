"""Free dimensions of a graph: without a size in the file, or with the size 0 or -1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import GraphProto, TensorShapeProto, ValueInfoProto

from edgekit.model import name_dimension


def clear_unsized(graphs: Iterable[GraphProto]) -> None:
    """Clear dimensions of size 0 or less, which Paddle writes for free dimensions, in place.

    Stored tensors of size 0 are left unchanged.
    """
    for graph in graphs:
        stored = {tensor.name for tensor in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.name not in stored:
                for dim in _get_dimensions(value):
                    if dim.HasField("dim_value") and dim.dim_value <= 0:
                        dim.Clear()


def graph_has_empty_input(graph: GraphProto) -> bool:
    """Return whether an input has a dimension of size 0, so that runtimes refuse real data."""
    stored = {tensor.name for tensor in graph.initializer}
    return any(
        dim.HasField("dim_value") and dim.dim_value == 0
        for value in graph.input
        if value.name not in stored
        for dim in _get_dimensions(value)
    )


def size_dimensions(value: ValueInfoProto, dims: Mapping[str, int]) -> None:
    """Set the free dimensions of a value in place.

    Args:
        value: an input of a graph.
        dims: sizes by name of the dimension; others become 1.
    """
    for axis, dim in enumerate(_get_dimensions(value)):
        if not dim.HasField("dim_value"):
            dim.dim_value = dims.get(name_dimension(value.name, axis, dim.dim_param), 1)


def _get_dimensions(value: ValueInfoProto) -> list[TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)
