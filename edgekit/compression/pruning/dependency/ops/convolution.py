"""Rules of convolutions: plain, grouped, depthwise and transposed."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto

from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.ops.elementwise import apply_activation
from edgekit.compression.pruning.dependency.propagation import (
    Axes,
    Product,
    Role,
    Walk,
    describe_node,
    get_integer,
)


def propagate_conv(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through Conv: X [N, C, ...], W [O, C / groups, ...]."""
    read = walk.get_axes(node, 0)
    _keep_spatial_axes(walk, read[2:], node)
    groups = get_integer(node, "group", 1)
    size = walk.size(node.input[1])
    made, inner = (
        _propagate_plain(walk, node, read)
        if groups == 1
        else _propagate_grouped(walk, node, read, groups)
    )
    out = walk.size(node.output[0])
    axes = [*_add_bias(walk, node, read[0], made), *walk.make_kept_axes(out[2:])]
    walk.axes[node.output[0]] = apply_activation(walk, node, _add_residual(walk, node, axes))
    constant = math.prod(size[2:]) * math.prod(out[2:]) * out[0]
    walk.products.append(Product(node=node, constant=constant, axes=(made, inner)))


def _propagate_plain(walk: Walk, node: NodeProto, read: Axes) -> tuple[Axis, Axis]:
    """Return the output channels of a Conv of one group, and the input channels of its weight."""
    roles: dict[int, Role] = {0: "makes", 1: "reads"}
    values = {0: (node.output[0], 1), 1: (node.input[0], 1)}
    weight = _read_weight_axes(walk, node, roles, values, {})
    walk.keep_nonzero(node, read[1])
    walk.atoms.same(read[1], weight[1])
    return weight[0], weight[1]


def _propagate_grouped(walk: Walk, node: NodeProto, read: Axes, groups: int) -> tuple[Axis, Axis]:
    """Return the output channels of a grouped Conv, and the input channels of its weight.

    Whole groups may be removed, and one channel of each group together. A depthwise convolution has
    only groups.
    """
    outputs, inputs = walk.size(node.input[1])[:2]
    per_group = outputs // groups
    whole = walk.make_output_axis(groups)
    inner = walk.make_output_axis(inputs) if inputs > 1 else np.zeros(1, np.intp)
    outer = (
        walk.make_output_axis(per_group)
        if inputs > 1 and per_group > 1
        else np.zeros(per_group, np.intp)
    )
    walk.atoms.same(read[1], walk.atoms.product([whole, inner]))
    walk.keep_nonzero(node, read[1], but=_find_roots(walk, whole))
    made = walk.atoms.product([whole, outer])
    roles: dict[int, Role] = {0: "makes" if inputs > 1 else "along", 1: "reads"}
    values = {0: (node.output[0], 1), 1: (node.input[0], 1)}
    _read_weight_axes(walk, node, roles, values, {0: made, 1: inner})
    walk.counts.append((node, "group", whole))
    return made, inner


def _find_roots(walk: Walk, axis: Axis) -> set[int]:
    return {root for label in axis.tolist() for root in walk.atoms.find_free_roots(label)}


def _read_weight_axes(
    walk: Walk,
    node: NodeProto,
    roles: dict[int, Role],
    values: dict[int, tuple[str, int]],
    given: dict[int, Axis],
) -> Axes:
    if walk.is_stored(node.input[1]):
        weight = walk.read_stored_axes(node, 1, roles, values, given)
    else:
        weight = walk.get_axes(node, 1)
        for axis, labels in given.items():
            walk.atoms.same(weight[axis], labels)
    _keep_spatial_axes(walk, weight[2:], node)
    return weight


def _keep_spatial_axes(walk: Walk, axes: Axes, node: NodeProto) -> None:
    for axis in axes:
        walk.keep(axis, f"{describe_node(node)} slides its window over this axis")


def _add_bias(walk: Walk, node: NodeProto, batch: Axis, made: Axis) -> Axes:
    """Return the first two axes of the output after the bias is added."""
    if len(node.input) < 3 or not node.input[2]:
        return [batch, made]
    bias = walk.get_axes(node, 2)[0]
    walk.atoms.same(made, bias)
    return [
        walk.atoms.mark_nonzero(batch, describe_node(node)),
        walk.atoms.combine_sum([made, bias]),
    ]


def _add_residual(walk: Walk, node: NodeProto, axes: Axes) -> Axes:
    """Return the axes of the sum with the fourth input of a FusedConv."""
    if len(node.input) < 4 or not node.input[3]:
        return axes
    other = walk.get_axes(node, 3)
    for mine, its in zip(axes, other, strict=True):
        walk.atoms.same(mine, its)
    return [walk.atoms.combine_sum([mine, its]) for mine, its in zip(axes, other, strict=True)]


def propagate_conv_transpose(walk: Walk, node: NodeProto) -> None:
    """Propagate channels through ConvTranspose: X [N, C, ...], W [C, O / groups, ...]."""
    read = walk.get_axes(node, 0)
    _keep_spatial_axes(walk, read[2:], node)
    groups = get_integer(node, "group", 1)
    size = walk.size(node.input[1])
    values = {0: (node.input[0], 1), 1: (node.output[0], 1)}
    if groups == 1:
        weight = _read_weight_axes(walk, node, {0: "reads", 1: "makes"}, values, {})
        walk.keep_nonzero(node, read[1])
        walk.atoms.same(read[1], weight[0])
        made = outer = weight[1]
    else:
        made, outer = _propagate_grouped_transpose(walk, node, read, groups)
    out = walk.size(node.output[0])
    walk.axes[node.output[0]] = [
        *_add_bias(walk, node, read[0], made),
        *walk.make_kept_axes(out[2:]),
    ]
    place = math.prod(size[2:]) * math.prod(walk.size(node.input[0])[2:]) * out[0]
    walk.products.append(Product(node=node, constant=place, axes=(read[1], outer)))


def _propagate_grouped_transpose(
    walk: Walk, node: NodeProto, read: Axes, groups: int
) -> tuple[Axis, Axis]:
    """Return the output channels of a grouped ConvTranspose, and those of one group."""
    inputs, per_group = walk.size(node.input[1])[:2]
    inner_size = inputs // groups
    whole = walk.make_output_axis(groups)
    inner = walk.make_output_axis(inner_size) if inner_size > 1 else np.zeros(1, np.intp)
    outer = (
        walk.make_output_axis(per_group)
        if inner_size > 1 and per_group > 1
        else np.zeros(per_group, np.intp)
    )
    entering = walk.atoms.product([whole, inner])
    walk.atoms.same(read[1], entering)
    walk.keep_nonzero(node, read[1], but=_find_roots(walk, whole))
    values = {0: (node.input[0], 1), 1: (node.output[0], 1)}
    roles: dict[int, Role] = {0: "along" if inner_size == 1 else "reads", 1: "makes"}
    _read_weight_axes(walk, node, roles, values, {0: entering, 1: outer})
    walk.counts.append((node, "group", whole))
    return walk.atoms.product([whole, outer]), outer
