"""Rules of elementwise operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.propagation import Axes, Walk, describe_node
from edgekit.onnx_graph.graph_index import read_attribute

_NONE: Axis = np.zeros(0, np.intp)
# Operators that do not map zero to zero.
LOUD = {
    "Acos", "Acosh", "ArgMax", "ArgMin", "BitwiseNot", "Cos", "Cosh", "Exp", "HardSigmoid", "Log",
    "Not", "Reciprocal", "Sigmoid", "Softplus",
}  # fmt: skip
# Operators that yield zero if any operand is zero.
_PRODUCTS = {"And", "BitwiseAnd", "Mul"}
# Operators that yield zero if the first operand is zero.
_QUOTIENTS = {"Div", "Mod", "PRelu", "Pow"}
# Operators that yield zero if all operands are zero. Those in none of these sets compare.
_SUMS = {
    "Add", "BiasGelu", "BitwiseOr", "BitwiseXor", "FastGelu", "FusedGemm", "Gemm", "Max", "Mean",
    "Min", "Or", "Sub", "Sum", "Xor",
}  # fmt: skip


def propagate_unary(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through a unary operator: outputs have the axes of the first input.

    Further inputs are scalars.
    """
    axes = walk.get_axes(node, 0)
    for position, name in enumerate(node.input):
        if position and name:
            walk.settle(node, position)
    if node.op_type in LOUD or (node.op_type == "Clip" and not _is_zero_in_clip_range(walk, node)):
        axes = walk.mark_nonzero(node, axes)
    for place, name in enumerate(node.output):
        if name:
            walk.axes[name] = walk.mark_nonzero(node, axes) if place else axes


def apply_activation(walk: Walk, node: NodeProto, axes: Axes) -> Axes:
    """Return the axes after the activation that a node has as an attribute, if it has one."""
    name = read_attribute(node, "activation", b"")
    text = name.decode() if isinstance(name, bytes) else ""
    if text in LOUD or text == "Clip":
        return walk.mark_nonzero(node, axes)
    return axes


def _is_zero_in_clip_range(walk: Walk, node: NodeProto) -> bool:
    bounds = [0.0, 0.0]
    for place, name in enumerate(("min", "max")):
        value: object = read_attribute(node, name, 0.0)
        if len(node.input) > place + 1 and node.input[place + 1]:
            stored = walk.index.constant(node.input[place + 1])
            if stored is None:
                return False
            value = float(stored.ravel()[0])
        bounds[place] = value if isinstance(value, float) else 0.0
    return bounds[0] <= 0 <= bounds[1]


def propagate_broadcast(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through an elementwise operator with broadcasting."""
    size = walk.size(node.output[0])
    read = [(name, walk.get_axes(node, place)) for place, name in enumerate(node.input) if name]
    walk.axes[node.output[0]] = unify_broadcast(walk, read, size, node)


def unify_broadcast(
    walk: Walk, read: Sequence[tuple[str, Axes]], size: Sequence[int], node: NodeProto
) -> Axes:
    """Unify the axes of operands that are broadcast to an output shape; return the output's axes.

    Args:
        walk: the propagation.
        read: names and axes of the operands.
        size: shape of the output.
        node: the operator.
    """
    made: Axes = []
    for axis, n in enumerate(size):
        back = len(size) - axis
        meeting = [(name, axes[-back] if len(axes) >= back else _NONE) for name, axes in read]
        made.append(_combine_axes(walk, meeting, n, node))
    return made


def _combine_axes(
    walk: Walk, meeting: Sequence[tuple[str, Axis]], length: int, node: NodeProto
) -> Axis:
    full = [axis for _, axis in meeting if len(axis) == length]
    for _, axis in meeting:
        if len(axis) != length:
            walk.keep(axis, f"they are broadcast by {describe_node(node)}")
    for axis in full[1:]:
        walk.atoms.same(full[0], axis)
    if not any(axis.any() for axis in full):
        return full[0]
    op = node.op_type
    if op in _PRODUCTS or op in ("MatMul", "FusedMatMul"):
        return walk.atoms.combine_product(full)
    if op in _QUOTIENTS and len(meeting[0][1]) == length and _has_zero_fixed_point(walk, node):
        return full[0]
    spread = [name for name, axis in meeting if len(axis) != length]
    if op in _SUMS and all(_is_neutral(walk, node, name) for name in spread):
        return walk.atoms.combine_sum(full)
    return walk.atoms.mark_nonzero(full[0], describe_node(node))


def _has_zero_fixed_point(walk: Walk, node: NodeProto) -> bool:
    """Return whether a Pow maps zero to zero; True for other operators."""
    if node.op_type != "Pow":
        return True
    power = walk.index.constant(node.input[1])
    return power is not None and bool(np.greater(power, 0).all())


def _is_neutral(walk: Walk, node: NodeProto, name: str) -> bool:
    """Return whether an operand that is broadcast over an axis leaves zeros unchanged."""
    value = walk.index.constant(name) if name else None
    if value is None:
        return False
    if node.op_type == "Max":
        return bool(np.less_equal(value, 0).all())
    return bool(np.greater_equal(value, 0).all()) if node.op_type == "Min" else not value.any()


def propagate_where(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Where: branches are unified, the condition does not matter."""
    read = [walk.get_axes(node, position) for position in range(3)]
    size = walk.size(node.output[0])
    made = unify_broadcast(walk, list(zip(node.input, read, strict=True)), size, node)
    for axis, n in enumerate(size):
        ends = [
            (name, axes[axis - len(size)] if len(axes) >= len(size) - axis else _NONE)
            for name, axes in zip(node.input[1:], read[1:], strict=True)
        ]
        full = [labels for _, labels in ends if len(labels) == n]
        spread = [name for name, labels in ends if len(labels) != n]
        if full and all(_is_neutral(walk, node, name) for name in spread):
            made[axis] = walk.atoms.combine_sum(full)
    walk.axes[node.output[0]] = made
