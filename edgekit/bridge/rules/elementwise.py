"""Operators that work on each entry alone, and on pairs of entries with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import NodeProto

from edgekit.bridge.graph import Tensor
from edgekit.bridge.layout import Order, Value, plain_order
from edgekit.bridge.lowering import Lowering
from edgekit.bridge.rules.maths import pair, single


def unary(kind: str) -> Callable[[Lowering, NodeProto], None]:
    """The rule of an operator that TFLite has under another name."""
    return partial(_unary, kind=kind)


def binary(kind: str, *, dtype: str | None = None) -> Callable[[Lowering, NodeProto], None]:
    """The rule of an operator on two values, with broadcasting.

    Args:
        kind: TFLite's name.
        dtype: of the output, where it isn't that of the inputs.
    """
    return partial(_binary, kind=kind, dtype=dtype)


def _unary(low: Lowering, node: NodeProto, *, kind: str) -> None:
    value = low.value(node, 0)
    low.bind(node, single(low, kind, value.tensor), value.order)


def _binary(low: Lowering, node: NodeProto, *, kind: str, dtype: str | None) -> None:
    (left, right), order = together(low, [low.value(node, 0), low.value(node, 1)])
    low.bind(node, pair(low, kind, left, right, dtype=dtype), order)


def together(low: Lowering, values: list[Value]) -> tuple[list[Tensor], Order]:
    """Values in one storage order and of shapes that broadcast, and that order.

    The order is that of the largest computed value of full rank, so that images with channels
    last stay so; the others are transposed.
    """
    rank = max(len(v.order) for v in values)
    full = [v for v in values if len(v.order) == rank]
    leader = max(full, key=lambda v: _weight(low, v))
    return [_aligned(low, v, leader.order) for v in values], leader.order


def _weight(low: Lowering, value: Value) -> tuple[bool, int, bool]:
    is_computed = not low.is_stored(value.tensor)
    return is_computed, int(np.prod(value.tensor.shape)), not value.is_plain


def _aligned(low: Lowering, value: Value, order: Order) -> Tensor:
    missing = len(order) - len(value.order)
    if order == plain_order(len(order)) or not value.order:
        return low.ordered(value, None)
    if missing:
        tensor = low.ordered(value, None)
        tensor = low.reshaped(tensor, (1,) * missing + tensor.shape)
        value = Value(tensor=tensor, order=plain_order(len(order)))
    return low.ordered(value, order)


RULES = {
    "Add": binary("ADD"),
    "Sub": binary("SUB"),
    "Mul": binary("MUL"),
    "Relu": unary("RELU"),
    "Sigmoid": unary("LOGISTIC"),
    "Tanh": unary("TANH"),
}
