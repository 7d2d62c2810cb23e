"""Rules of MatMul and Gemm, with stored factors or without."""

from __future__ import annotations

from onnx import NodeProto

from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.ops.elementwise import apply_activation, unify_broadcast
from edgekit.compression.pruning.dependency.propagation import (
    Axes,
    Product,
    Role,
    Walk,
    describe_node,
    get_integer,
)


def propagate_matmul(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through MatMul: A [..., M, K] times B [..., K, N].

    FusedMatMul may transpose either factor.
    """
    if any(get_integer(node, name, 0) for name in ("transBatchA", "transBatchB")):
        walk.keep_node(node, f"pruning does not support this variant of {describe_node(node)}")
        return
    left = _get_factor_axes(
        walk, node, 0, outer=-2, inner=-1, turned=get_integer(node, "transA", 0)
    )
    right = _get_factor_axes(
        walk, node, 1, outer=-1, inner=-2, turned=get_integer(node, "transB", 0)
    )
    inner = unify_summed_axes(walk, node, left[-1], right[-2] if len(right) > 1 else right[-1])
    size = walk.size(node.output[0])
    rows = [left[-2]] if len(left) > 1 else []
    columns = [right[-1]] if len(right) > 1 else []
    batch = size[: len(size) - len(rows) - len(columns)]
    factors = list(zip(node.input, (left[:-2], right[:-2]), strict=True))
    leading = unify_broadcast(walk, factors, batch, node)
    if not any(walk.is_stored(name) for name in node.input):
        for axis in leading:
            walk.atoms.mark_kind(axis, "heads")
        for axis in (inner, *rows, *columns):
            walk.atoms.mark_kind(axis, "channels")
    walk.axes[node.output[0]] = made = [*leading, *rows, *columns]
    walk.products.append(Product(node=node, constant=1, axes=(*made, inner)))


def unify_summed_axes(walk: Walk, node: NodeProto, one: Axis, other: Axis) -> Axis:
    """Unify the axis that a product sums over; removed positions must be zero in one factor."""
    stored = [walk.is_stored(name) for name in node.input[:2]]
    walk.atoms.same(one, other)
    read = [axis for axis, fixed in zip((one, other), stored, strict=True) if not fixed]
    walk.keep_nonzero(node, walk.atoms.combine_product(read or [one]))
    return one


def _get_factor_axes(
    walk: Walk, node: NodeProto, position: int, *, outer: int, inner: int, turned: int
) -> Axes:
    """Return the axes of a factor in untransposed order; a stored one makes and reads channels."""
    name = node.input[position]
    rank = len(walk.size(name))
    swapped = bool(turned) and rank > 1
    if walk.is_stored(name):
        other = -1 if position else -2
        if get_integer(node, "transB" if position == 0 else "transA", 0):
            other = -3 - other
        axes = _read_stored_factor(walk, node, position, (outer, inner), other, swapped=swapped)
    else:
        axes = walk.get_axes(node, position)
    return [*axes[:-2], axes[-1], axes[-2]] if swapped else axes


def _read_stored_factor(
    walk: Walk,
    node: NodeProto,
    position: int,
    ends: tuple[int, int],
    other: int,
    *,
    swapped: bool,
) -> Axes:
    """Return the axes of a stored factor; ``other`` is the other factor's axis of the sum."""
    rank = len(walk.size(node.input[position]))
    read = (node.input[1 - position], other)
    if rank < 2:
        return walk.read_stored_axes(node, position, {0: "reads"}, {0: read})
    outer, inner = (rank + (-3 - end if swapped else end) for end in ends)
    roles: dict[int, Role] = {outer: "makes", inner: "reads"}
    return walk.read_stored_axes(
        node, position, roles, {outer: (node.output[0], ends[0]), inner: read}
    )


def propagate_gemm(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Gemm: A [M, K] times B [K, N], possibly transposed, plus C."""
    turned = [get_integer(node, name, 0) for name in ("transA", "transB")]
    # (outer, inner) axis of each factor
    at = [(1, 0) if turned[0] else (0, 1), (0, 1) if turned[1] else (1, 0)]
    factors = []
    for position, (outer, inner) in enumerate(at):
        if walk.is_stored(node.input[position]):
            other = at[1 - position]
            roles: dict[int, Role] = {outer: "makes", inner: "reads"}
            values = {
                outer: (node.output[0], position),
                inner: (node.input[1 - position], other[1]),
            }
            factors.append(walk.read_stored_axes(node, position, roles, values))
        else:
            factors.append(walk.get_axes(node, position))
    inner_axis = unify_summed_axes(walk, node, factors[0][at[0][1]], factors[1][at[1][1]])
    made = [factors[0][at[0][0]], factors[1][at[1][0]]]
    read = [("", made)]
    if len(node.input) > 2 and node.input[2]:
        read.append((node.input[2], walk.get_axes(node, 2)))
    axes = unify_broadcast(walk, read, walk.size(node.output[0]), node)
    walk.axes[node.output[0]] = apply_activation(walk, node, axes)
    walk.products.append(Product(node=node, constant=1, axes=(*made, inner_axis)))
