"""Quantization grids of weights that are stored as integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.tflite.ir import Array
from edgekit.training.tf_function.quantized import get_integer_bounds

_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Quantization grid of a weight that is stored as integers, in ONNX's layout.

    Args:
        dtype: type of the stored integers.
        scale: name of the initializer that holds the scales.
        scales: as stored, float32.
        scale_shape: shape in which the scales broadcast against the weight; unused for blocks.
        zero_points: int64, in a shape that broadcasts against the weight.
        shape: of the weight.
        levels: smallest and largest integer less the zero point, for the number of bits in use.
        axis: of the blocks.
        block: number of entries along the axis that share a scale; 0 without blocks.
    """

    dtype: str
    scale: str
    scales: Array
    scale_shape: tuple[int, ...]
    zero_points: Array
    shape: tuple[int, ...]
    levels: tuple[int, int]
    axis: int = 0
    block: int = 0

    def spread(self, parameter: Any) -> Any:  # noqa: ANN401 - of numpy or TensorFlow
        """Expand scales or zero points to a shape that broadcasts against the weight."""
        if self.block:
            return repeat_blocks(parameter, self.shape, self.axis, self.block)
        if tf.is_tensor(parameter):
            return tf.reshape(parameter, self.scale_shape)
        return np.reshape(parameter, self.scale_shape)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Return the smallest and largest level of each entry that the integer type can store."""
        lowest, highest = get_integer_bounds(self.dtype)
        return (
            np.maximum(self.levels[0], lowest - self.zero_points),
            np.minimum(self.levels[1], highest - self.zero_points),
        )

    def real(self, integers: Array) -> Array:
        """Return the real values that stored integers represent, as float32."""
        levels = (integers.astype(np.int64) - self.zero_points).astype(np.float32)
        return np.asarray(levels * self.spread(self.scales), np.float32)

    def integers(self, values: Array, scales: Array) -> Array:
        """Quantize values to the nearest integers of the grid, as int64.

        The arithmetic is that of TensorFlow in float32, so that values at ties round the same way.
        """
        steps = np.maximum(self.spread(scales.astype(np.float32)), _TINY)
        levels = np.rint(values.astype(np.float32) / steps).astype(np.float64)
        return np.asarray(np.clip(levels, *self.bounds).astype(np.int64) + self.zero_points)

    def agrees_with(self, other: Grid) -> bool:
        """Return whether another grid gives the same integers the same real values."""
        pairs = (
            (self.spread(self.scales), other.spread(other.scales)),
            (self.zero_points, other.zero_points),
        )
        return all(
            np.array_equal(np.broadcast_to(a, self.shape), np.broadcast_to(b, self.shape))
            for a, b in pairs
        )


def repeat_blocks(parameter: Any, shape: tuple[int, ...], axis: int, block: int) -> Any:  # noqa: ANN401
    """Repeat each scale of a block for the entries of the block.

    Args:
        parameter: scales or zero points, of numpy or TensorFlow.
        shape: of the weight.
        axis: of the blocks.
        block: number of entries along the axis that share a scale.
    """
    block_indices = np.minimum(np.arange(shape[axis]) // block, parameter.shape[axis] - 1)
    if tf.is_tensor(parameter):
        return tf.gather(parameter, block_indices, axis=axis)
    return np.take(parameter, block_indices, axis=axis)


def find_level_range(integers: Array, zero_points: Array) -> tuple[int, int]:
    """Return the level range of the smallest bit width that holds the integers of a weight.

    Learned weights stay in this range, so that they need no more bits than before.
    """
    lowest, highest = get_integer_bounds(integers.dtype.name)
    if integers.dtype.name == "int32":
        return lowest, highest
    levels = integers.astype(np.int64) - zero_points
    least, most = int(levels.min()), int(levels.max())
    top = 1
    while most > top or least < -top - 1:
        top = 2 * top + 1
    return (-top if least >= -top else -top - 1), top
