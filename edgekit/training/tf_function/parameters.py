"""Learnable parameters of an ONNX graph: float weights, integer weights and their scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from edgekit.onnx_graph.graph_index import read_attribute
from edgekit.onnx_graph.rewrites.bias_scales import computes_bias_scales, store_bias_scales
from edgekit.tflite.ir import Array
from edgekit.training.tf_function.quantized import (
    compute_gradient_factor,
    fake_quantize,
    get_integer_bounds,
    scale_gradient,
)

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_INTEGERS = {
    "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32"
}  # fmt: skip
# Positions of inputs that are settings or statistics and are not learned, by operator.
_NOT_LEARNED: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4),
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "DequantizeLinear": (1, 2),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1, 2),
    "Pad": (2,),
    "Pow": (1,),
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "Resize": (1, 2),
    "Upsample": (1,),
}
_LEAST_SHARE = 1e-3  # lower bound of a learned scale, as a share of its initial value


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Quantization grid of a weight that is stored as integers, in ONNX's layout.

    Args:
        dtype: type of the stored integers.
        scale: name of the initializer that holds the scales.
        scales: as stored, float32.
        zero_points: int64, in a shape that broadcasts against the weight.
        axis: of the scales; 0 for a single scale.
        block: number of entries along the axis that share a scale; 0 for a single scale and for
            one scale per index of the axis.
        shape: of the weight.
        levels: smallest and largest integer less the zero point, for the number of bits in use.
    """

    dtype: str
    scale: str
    scales: Array
    zero_points: Array
    axis: int
    block: int
    shape: tuple[int, ...]
    levels: tuple[int, int]

    def spread(self, parameter: Any) -> Any:  # noqa: ANN401 - of numpy or TensorFlow
        """Expand scales or zero points to a shape that broadcasts against the weight."""
        return _expand_to_shape(parameter, self.shape, self.axis, self.block)

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
        """Quantize values to the nearest integers of the grid, as int64."""
        steps = np.maximum(self.spread(scales), np.finfo(np.float32).tiny)
        levels = np.clip(np.rint(values / steps), *self.bounds)
        return np.asarray(levels.astype(np.int64) + self.zero_points)


@dataclass(frozen=True, kw_only=True, eq=False)
class Parameter:
    """Initializer that is learned.

    Args:
        variable: its value in ONNX's layout, float32.
        grid: of a weight that is stored as integers; ``None`` for floats.
    """

    variable: Any
    grid: Grid | None = None

    def read(self, learned: Any) -> Any:  # noqa: ANN401
        """Return the value as the graph reads it, rounded to the grid if there is one.

        Values of an int32 grid (biases) are not rounded.

        Args:
            learned: scales that replace the stored ones; ``None`` keeps those.
        """
        grid = self.grid
        if grid is None or grid.dtype == "int32":
            return tf.convert_to_tensor(self.variable)
        scales = grid.scales
        if learned is not None:
            share = np.prod(grid.shape) / grid.scales.size
            scales = scale_gradient(learned, compute_gradient_factor(share, grid.levels[1]))
        lowest, highest = (b.astype(np.float32) for b in grid.bounds)
        steps = tf.maximum(grid.spread(scales), np.finfo(np.float32).tiny)
        return fake_quantize(self.variable, steps, lowest, highest)


def clamp_scale(variable: Any, first: Array) -> Any:  # noqa: ANN401
    """Clamp a learned scale to at least a thousandth of its initial magnitude.

    Args:
        variable: the scale, whatever value the last training step gave it.
        first: its initial value.
    """
    return tf.maximum(tf.convert_to_tensor(variable), np.abs(first) * _LEAST_SHARE)


def collect_constants(proto: ModelProto) -> dict[str, TensorProto]:
    """Return the stored tensors of a graph by name, those of Constant nodes included; no copies."""
    constants = {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return constants


def copy_with_bias_scales(proto: ModelProto) -> ModelProto:
    """Replace computed bias scales by stored ones in a copy of a model.

    Returns:
        The copy; the model itself if it computes no bias scales.
    """
    if not computes_bias_scales(proto):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    store_bias_scales(copy)
    return copy


def find_parameters(proto: ModelProto) -> dict[str, Parameter]:
    """Find the learnable weights of a graph, stored as floats or integers, by initializer name.

    Scalars, statistics of BatchNormalization, scales and settings of operators are not learned.
    """
    stored = collect_constants(proto)
    settings = _find_settings(proto)
    parameters: dict[str, Parameter] = {}
    for name, tensor in stored.items():
        if tensor.data_type in _FLOATS and tensor.dims and name not in settings:
            parameters[name] = _make_parameter(
                name, numpy_helper.to_array(tensor).astype(np.float32)
            )
    for name, grid in find_grids(proto, stored).items():
        values = grid.real(numpy_helper.to_array(stored[name]))
        parameters[name] = _make_parameter(name, values, grid)
    return parameters


def _make_parameter(name: str, value: Array, grid: Grid | None = None) -> Parameter:
    variable = tf.Variable(value, name="".join(c if c.isalnum() else "_" for c in name) or "_")
    return Parameter(variable=variable, grid=grid)


def _find_settings(proto: ModelProto) -> set[str]:
    return {
        node.input[position]
        for node in proto.graph.node
        for position in _NOT_LEARNED.get(node.op_type, ())
        if position < len(node.input)
    }


def find_grids(proto: ModelProto, stored: Mapping[str, TensorProto]) -> dict[str, Grid]:
    """Find the grid of each weight that only DequantizeLinear reads, always with the same scales.

    Args:
        proto: the model.
        stored: its stored tensors by name, from ``collect_constants``.
    """
    grids: dict[str, Grid] = {}
    users: dict[str, set[tuple[str, ...]]] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, set()).add(
                _describe_use(node) if name == node.input[0] else ("other",)
            )
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and len(users[node.input[0]]) == 1:
            grid = _read_grid(node, stored)
            if grid is not None:
                grids[node.input[0]] = grid
    return grids


def _describe_use(node: NodeProto) -> tuple[str, ...]:
    settings = (str(read_attribute(node, key, "")) for key in ("axis", "block_size"))
    return (node.op_type, *node.input[1:], *settings)


def _read_grid(node: NodeProto, stored: Mapping[str, TensorProto]) -> Grid | None:
    if any(name and name not in stored for name in node.input):
        return None
    integers, scales, *zero = (numpy_helper.to_array(stored[n]) for n in node.input if n)
    if integers.dtype.name not in _INTEGERS or not integers.size:
        return None
    axis = (
        int(str(read_attribute(node, "axis", 1))) % max(integers.ndim, 1) if scales.size > 1 else 0
    )
    block = int(str(read_attribute(node, "block_size", 0)))
    flat = zero[0].astype(np.int64) if zero else np.zeros(scales.shape, np.int64)
    zero_points = _expand_to_shape(flat.reshape(scales.shape), integers.shape, axis, block)
    return Grid(
        dtype=integers.dtype.name,
        scale=node.input[1],
        scales=scales.astype(np.float32),
        zero_points=zero_points,
        axis=axis,
        block=block,
        shape=integers.shape,
        levels=_find_level_range(integers, zero_points),
    )


def _find_level_range(integers: Array, zero_points: Array) -> tuple[int, int]:
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


def _expand_to_shape(parameter: Any, shape: tuple[int, ...], axis: int, block: int) -> Any:  # noqa: ANN401
    if int(np.prod(parameter.shape)) == 1:
        return (
            parameter
            if tf.is_tensor(parameter) and not parameter.shape
            else _reshape(parameter, ())
        )
    if not block:
        sizes = [1] * len(shape)
        sizes[axis] = shape[axis]
        return _reshape(parameter, tuple(sizes))
    block_indices = np.minimum(np.arange(shape[axis]) // block, parameter.shape[axis] - 1)
    if tf.is_tensor(parameter):
        return tf.gather(parameter, block_indices, axis=axis)
    return np.take(parameter, block_indices, axis=axis)


def _reshape(parameter: Any, shape: tuple[int, ...]) -> Any:  # noqa: ANN401
    return tf.reshape(parameter, shape) if tf.is_tensor(parameter) else parameter.reshape(shape)


def find_learnable_scales(proto: ModelProto) -> dict[str, Array]:
    """Find the learnable scales and their initial values, by initializer name.

    Scales that are computed, scales of int32 biases, and a DequantizeLinear's copy of its
    QuantizeLinear's scale (``find_shared_scales``) are not learned.
    """
    stored = collect_constants(proto)
    scales: dict[str, Array] = {}
    shared_names: set[str] = set(find_shared_scales(proto))
    for node, name in _iter_scale_reads(proto):
        tensor = stored.get(name)
        if tensor is None or _is_bias(node, stored) or tensor.data_type not in _FLOATS:
            shared_names.add(name)
        else:
            scales[name] = numpy_helper.to_array(tensor).astype(np.float32)
    return {name: value for name, value in scales.items() if name not in shared_names}


def find_shared_scales(proto: ModelProto) -> dict[str, str]:
    """Map the scale of each DequantizeLinear to that of the QuantizeLinear that feeds it.

    Only pairs of two different stored initializers are listed, by name.
    """
    stored = collect_constants(proto)
    makers = {n.output[0]: n for n in proto.graph.node if n.op_type == "QuantizeLinear"}
    shared: dict[str, str] = {}
    for node in proto.graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker is not None and maker.input[1] != node.input[1]:
            shared[node.input[1]] = maker.input[1]
    return {k: v for k, v in shared.items() if k in stored and v in stored}


def _iter_scale_reads(proto: ModelProto) -> Iterator[tuple[NodeProto, str]]:
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield node, node.input[1]


def _is_bias(node: NodeProto, stored: Mapping[str, TensorProto]) -> bool:
    tensor = stored.get(node.input[0])
    return tensor is not None and tensor.data_type == TensorProto.INT32


def replace_with_floats(settled: ModelProto, learned: Mapping[str, Parameter]) -> dict[str, str]:
    """Replace the DequantizeLinear nodes of learned weights by float initializers, in place.

    Args:
        settled: the model, changed in place.
        learned: parameters by initializer name.

    Returns:
        The name of each integer initializer by the name of the float initializer made from it.
    """
    stored = {t.name: t for t in settled.graph.initializer}
    float_names: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in settled.graph.node:
        name = node.input[0] if node.input else ""
        parameter = learned.get(name)
        if node.op_type != "DequantizeLinear" or parameter is None or parameter.grid is None:
            nodes.append(node)
            continue
        float_names[node.output[0]] = name
        values = parameter.grid.real(numpy_helper.to_array(stored[name]))
        settled.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del settled.graph.node[:]
    settled.graph.node.extend(nodes)
    return float_names
