"""Products: MatMul, Gemm, and Einsum, with stored factors or without."""

from __future__ import annotations

from onnx import NodeProto

from edgekit.graphs.channels.atoms import Axis
from edgekit.graphs.channels.rules.elementwise import lined_up
from edgekit.graphs.channels.walking import Axes, Product, Role, Walk, integer


def matmul(walk: Walk, node: NodeProto) -> None:
    """A [..., M, K] times B [..., K, N]."""
    left = _factor(walk, node, 0, outer=-2, inner=-1)
    right = _factor(walk, node, 1, outer=-1, inner=-2)
    inner = summed(walk, node, left[-1], right[-2] if len(right) > 1 else right[-1])
    size = walk.size(node.output[0])
    rows = [left[-2]] if len(left) > 1 else []
    columns = [right[-1]] if len(right) > 1 else []
    batch = size[: len(size) - len(rows) - len(columns)]
    factors = list(zip(node.input, (left[:-2], right[:-2]), strict=True))
    leading = lined_up(walk, factors, batch, node)
    if not any(walk.is_stored(name) for name in node.input):
        for axis in leading:
            walk.atoms.mark(axis, "heads")
        for axis in (inner, *rows, *columns):
            walk.atoms.mark(axis, "channels")
    walk.axes[node.output[0]] = made = [*leading, *rows, *columns]
    walk.products.append(Product(node=node, constant=1, axes=(*made, inner)))


def summed(walk: Walk, node: NodeProto, one: Axis, other: Axis) -> Axis:
    """The axis that a product sums over: what goes is zero in one of its factors."""
    stored = [walk.is_stored(name) for name in node.input[:2]]
    walk.atoms.same(one, other)
    read = [axis for axis, fixed in zip((one, other), stored, strict=True) if not fixed]
    walk.adds_up(node, walk.atoms.any_of(read or [one]))
    return one


def _factor(walk: Walk, node: NodeProto, position: int, *, outer: int, inner: int) -> Axes:
    """The axes of a factor; a stored one makes channels and reads channels."""
    name = node.input[position]
    if not walk.is_stored(name):
        return walk.of(node, position)
    rank = len(walk.size(name))
    if rank < 2:
        roles: dict[int, Role] = {0: "reads"}
        values = {0: (node.input[1 - position], -1 if position else -2)}
        return walk.stored(node, position, roles, values)
    roles = {rank + outer: "makes", rank + inner: "reads"}
    values = {
        rank + outer: (node.output[0], outer),
        rank + inner: (node.input[1 - position], -1 if position else -2),
    }
    return walk.stored(node, position, roles, values)


def gemm(walk: Walk, node: NodeProto) -> None:
    """A [M, K] or transposed times B [K, N] or transposed, plus C."""
    turned = [integer(node, name, 0) for name in ("transA", "transB")]
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
            factors.append(walk.stored(node, position, roles, values))
        else:
            factors.append(walk.of(node, position))
    inner_axis = summed(walk, node, factors[0][at[0][1]], factors[1][at[1][1]])
    made = [factors[0][at[0][0]], factors[1][at[1][0]]]
    read = [("", made)]
    if len(node.input) > 2 and node.input[2]:
        read.append((node.input[2], walk.of(node, 2)))
    walk.axes[node.output[0]] = lined_up(walk, read, walk.size(node.output[0]), node)
    walk.products.append(Product(node=node, constant=1, axes=(*made, inner_axis)))
