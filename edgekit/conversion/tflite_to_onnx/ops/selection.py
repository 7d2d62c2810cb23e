"""Conversion rules of SELECT and WHERE."""

from __future__ import annotations

from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import align_inputs
from edgekit.tflite.ir import Op


def select(lifting: Lifting, op: Op) -> None:
    """Convert SELECT, whose condition has one boolean per entry or per row."""
    condition, rank = lifting.tensor(op, 0), len(lifting.tensor(op, 1).shape)
    if len(condition.shape) == rank or not condition.shape:
        select_v2(lifting, op)
        return
    where = lifting.ints(*range(1, rank))
    rows = lifting.node("Unsqueeze", [lifting.plain(op, 0), where])
    inputs = [rows, lifting.plain(op, 1), lifting.plain(op, 2)]
    lifting.bind(op, lifting.node("Where", inputs))


def select_v2(lifting: Lifting, op: Op) -> None:
    """Convert SELECT_V2, whose three inputs broadcast."""
    inputs, order = align_inputs(lifting, op, [0, 1, 2])
    lifting.bind(op, lifting.node("Where", inputs), order)


def where(lifting: Lifting, op: Op) -> None:
    """Convert WHERE: the index tuples of true entries, one per row."""
    places = lifting.node("NonZero", [lifting.plain(op, 0)])
    places = lifting.node("Transpose", [places], {"perm": [1, 0]})
    dtype = op.outputs[0].dtype
    lifting.bind(op, places if dtype == "int64" else lifting.cast(places, dtype))


LIFTS: dict[str, Rule] = {"SELECT": select, "SELECT_V2": select_v2, "WHERE": where}
