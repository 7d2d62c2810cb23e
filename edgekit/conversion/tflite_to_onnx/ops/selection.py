"""Conversion rules of SELECT and WHERE."""

from __future__ import annotations

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import align_inputs
from edgekit.tflite.ir import Op


def select(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SELECT, whose condition has one boolean per entry or per row."""
    condition, rank = builder.tensor(op, 0), len(builder.tensor(op, 1).shape)
    if len(condition.shape) == rank or not condition.shape:
        select_v2(builder, op)
        return
    axes = builder.ints(*range(1, rank))
    rows = builder.node("Unsqueeze", [builder.plain(op, 0), axes])
    inputs = [rows, builder.plain(op, 1), builder.plain(op, 2)]
    builder.bind(op, builder.node("Where", inputs))


def select_v2(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SELECT_V2, whose three inputs broadcast."""
    inputs, order = align_inputs(builder, op, [0, 1, 2])
    builder.bind(op, builder.node("Where", inputs), order)


def where(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert WHERE: the index tuples of true entries, one per row."""
    indices = builder.node("NonZero", [builder.plain(op, 0)])
    indices = builder.node("Transpose", [indices], {"perm": [1, 0]})
    dtype = op.outputs[0].dtype
    builder.bind(op, indices if dtype == "int64" else builder.cast(indices, dtype))


RULES: dict[str, Rule] = {"SELECT": select, "SELECT_V2": select_v2, "WHERE": where}
