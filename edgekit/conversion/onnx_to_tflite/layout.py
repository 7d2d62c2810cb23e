"""Storage order of a value's axes, so that transposes are added only where they are needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.tflite.ir import Shape, Tensor

Order = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class MixedAxis:
    """An axis that was merged from several axes and is stored with these in another order.

    A flattened image in NHWC has its columns in another order than ONNX. A fully connected layer
    reads it as it is if the rows of its weight are reordered alike; other readers get it reordered.

    Args:
        axis: The merged axis, by ONNX's numbering.
        sizes: Sizes of its parts in ONNX's order.
        order: Stored part ``i`` is ONNX's part ``order[i]``.
    """

    axis: int
    sizes: Shape
    order: Order


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """An ONNX value: a tensor whose storage axis ``i`` holds axis ``order[i]`` of the value.

    TFLite expects images in NHWC where ONNX has NCHW. A value keeps the layout in which it was
    computed and is transposed only for readers that need another one.

    Args:
        tensor: The stored tensor.
        order: ONNX axis of each storage axis.
        mixed: Axis whose entries are stored in another order than in ONNX.
    """

    tensor: Tensor
    order: Order
    mixed: MixedAxis | None = None

    @property
    def shape(self) -> Shape:
        """Return the sizes in ONNX's order."""
        return to_onnx_shape(self.tensor.shape, self.order)

    @property
    def is_plain(self) -> bool:
        """Return whether the axes are stored in ONNX's order."""
        return self.order == plain_order(len(self.order))

    def axis(self, onnx_axis: int) -> int:
        """Return the storage axis of an ONNX axis, which may be negative."""
        return self.order.index(onnx_axis % len(self.order))


def split_mixed_axis(value: Value) -> tuple[Shape, Order]:
    """Return the storage shape and order of a value whose merged axis is split into its parts."""
    mixed = value.mixed
    if mixed is None:
        return value.tensor.shape, value.order
    added_axes = len(mixed.sizes) - 1
    shape: list[int] = []
    order: list[int] = []
    for size, axis in zip(value.tensor.shape, value.order, strict=True):
        if axis == mixed.axis:
            shape += [mixed.sizes[part] for part in mixed.order]
            order += [axis + part for part in mixed.order]
        else:
            shape.append(size)
            order.append(axis + added_axes if axis > mixed.axis else axis)
    return tuple(shape), tuple(order)


def plain_order(rank: int) -> Order:
    """Return the storage order that equals ONNX's."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """Return the order batch, space, channels (NHWC): (0, 2, 3, 1) for images."""
    return (0, *range(2, rank), 1)


def to_storage_shape(shape: Shape, order: Order) -> Shape:
    """Convert a shape from ONNX's order to storage order."""
    return tuple(shape[axis] for axis in order)


def to_onnx_shape(shape: Shape, order: Order) -> Shape:
    """Convert a shape from storage order to ONNX's order."""
    sizes = dict(zip(order, shape, strict=True))
    return tuple(sizes[axis] for axis in range(len(order)))


def permutation(source: Order, target: Order) -> Order:
    """Return the ``perm`` of the TRANSPOSE from one storage order to another."""
    return tuple(source.index(axis) for axis in target)


def merge_axes(shape: Shape, perm: Order) -> tuple[Shape, Order]:
    """Simplify a transpose: merge axes that stay adjacent and drop axes of size 1."""
    long_axes = [axis for axis in range(len(shape)) if shape[axis] != 1]
    groups: list[list[int]] = []
    for axis in perm:
        if shape[axis] == 1:
            continue
        position = long_axes.index(axis)
        if groups and groups[-1][-1] == position - 1:
            groups[-1].append(position)
        else:
            groups.append([position])
    stored_groups = sorted(groups)
    sizes = tuple(math.prod(shape[long_axes[i]] for i in group) for group in stored_groups)
    return sizes, tuple(stored_groups.index(group) for group in groups)


def is_reshape(shape: Shape, perm: Order) -> bool:
    """Return whether a transpose only moves axes of size 1, so that a RESHAPE does the same."""
    long_axes = [axis for axis in perm if shape[axis] != 1]
    return long_axes == sorted(long_axes)
