"""Rate of few-bit weights: the bits of their integers in a packed file, with a gradient.

Added to the loss, it keeps weights at values that the packed file stores in few bits. Source: the
rate-distortion Lagrangian (Shannon 1959); Oktay et al., Scalable Model Compression by Entropy
Penalized Reparameterization, ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.bundle.packing.slices import estimate_packed_bits
from edgekit.errors import PassRefused
from edgekit.tflite.ir import Array
from edgekit.training.tf_function.grids import Grid
from edgekit.training.tf_function.parameters import Parameter

# Weights that take more bits than this are not few-bit weights: their rate hardly depends on them.
_MOST_BITS = 6.0
# Added to the count of each level, so that a level that no weight has yet can still be reached.
_PSEUDO_COUNT = 0.5
_TINY = float(np.finfo(np.float32).tiny)


class Rate:
    """Bits of the few-bit weights of a graph, estimated from how often each integer occurs.

    Args:
        parameters: learnable weights by initializer name; those that take few bits are selected.

    Attributes:
        names: initializers of the selected weights.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = {
            name: parameter for name, parameter in parameters.items() if _is_few_bit(parameter)
        }
        self.names = tuple(self._parameters)
        self._tables = {
            name: tf.Variable(_compute_level_bits(parameter, None), trainable=False)
            for name, parameter in self._parameters.items()
        }

    def update(self, scales: Mapping[str, Any] | None = None) -> None:
        """Count the integers again, as the weights are now.

        Args:
            scales: learned scales by initializer name, as ``GraphFunction.scales`` returns them.
        """
        for name, parameter in self._parameters.items():
            self._tables[name].assign(_compute_level_bits(parameter, scales))

    def bits(
        self, values: Mapping[str, Any] | None = None, scales: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - TensorFlow has no types
        """Return the bits of all selected weights as a scalar with a gradient.

        Bits are those of the levels at the last ``update``, linearly interpolated between
        neighboring levels.

        Args:
            values: weights by initializer name; those that are absent are read from the variables.
            scales: learned scales by initializer name; no gradient flows into them.
        """
        total = tf.constant(0.0)
        for name, parameter in self._parameters.items():
            value = (values or {}).get(name, parameter.variable)
            total += _interpolate_bits(_get_grid(parameter), self._tables[name], value, scales)
        return total

    def measure(self, scales: Mapping[str, Any] | None = None) -> int:
        """Estimate the bits of the selected weights in a packed file, as they are now.

        Args:
            scales: learned scales by initializer name.
        """
        bits = sum(
            estimate_packed_bits(_read_levels(parameter, scales).astype(np.int8))
            for parameter in self._parameters.values()
        )
        return round(bits)


@dataclass(kw_only=True)
class Price:
    """Price of a bit in units of the loss, adapted until the weights keep to a number of bits.

    Attributes:
        budget: number of bits to keep to.
        value: the price now.
        least: lower bound of the price.
        most: upper bound of the price.
        growth: factor by which the price rises above the budget; below it, it falls by the square
            root.
    """

    budget: float
    value: float
    least: float
    most: float
    growth: float = 1.5

    def update(self, bits: float) -> float:
        """Adapt the price to the bits that the weights take now, and return it."""
        factor = self.growth if bits > self.budget else self.growth**-0.5
        self.value = min(max(self.value * factor, self.least), self.most)
        return self.value


def find_zero_masks(parameters: Mapping[str, Parameter]) -> dict[str, Array]:
    """Find the entries of pruned weights that have to stay zero.

    Returns:
        By initializer name, true where a float weight of two or more axes is exactly zero; weights
        without zeros are left out.
    """
    masks: dict[str, Array] = {}
    for name, parameter in parameters.items():
        if parameter.grid is None and len(parameter.variable.shape) >= 2:
            mask = parameter.variable.numpy() == 0
            if mask.any():
                masks[name] = mask
    return masks


def _is_few_bit(parameter: Parameter) -> bool:
    grid = parameter.grid
    if grid is None or grid.dtype == "int32" or max(map(abs, grid.levels)) > 127:
        return False
    levels = _read_levels(parameter, None)
    return estimate_packed_bits(levels.astype(np.int8)) <= _MOST_BITS * levels.size


def _get_grid(parameter: Parameter) -> Grid:
    if parameter.grid is None:
        raise PassRefused("the weight has no quantization grid")
    return parameter.grid


def _read_levels(parameter: Parameter, scales: Mapping[str, Any] | None) -> Array:
    """Return the integers of a weight, as they are now, less their zero points."""
    grid = _get_grid(parameter)
    steps = np.asarray((scales or {}).get(grid.scale, grid.scales))
    return np.asarray(grid.integers(parameter.variable.numpy(), steps) - grid.zero_points)


def _compute_level_bits(parameter: Parameter, scales: Mapping[str, Any] | None) -> Array:
    """Compute the bits of each level of a grid by its frequency."""
    lowest, highest = _get_grid(parameter).levels
    levels = _read_levels(parameter, scales) - lowest
    counts = np.bincount(levels.ravel(), minlength=highest - lowest + 1) + _PSEUDO_COUNT
    return np.asarray(-np.log2(counts / counts.sum()), np.float32)


def _interpolate_bits(
    grid: Grid,
    table: Any,  # noqa: ANN401
    value: Any,  # noqa: ANN401
    scales: Mapping[str, Any] | None,
) -> Any:  # noqa: ANN401
    steps = tf.stop_gradient((scales or {}).get(grid.scale, grid.scales))
    lowest, highest = grid.levels
    levels = value / tf.maximum(grid.spread(steps), _TINY)
    levels = tf.clip_by_value(levels, lowest, highest) - lowest
    below = tf.clip_by_value(tf.floor(tf.stop_gradient(levels)), 0, highest - lowest - 1)
    index = tf.cast(below, tf.int32)
    first, second = tf.gather(table, index), tf.gather(table, index + 1)
    return tf.reduce_sum(first + (levels - below) * (second - first))
