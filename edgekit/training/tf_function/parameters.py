"""Learnable parameters of an ONNX graph: float weights, integer weights and their scales."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from edgekit.onnx_graph.io import iter_graphs
from edgekit.onnx_graph.operators import BIASED_OPS
from edgekit.onnx_graph.output_parts import MOVING_OPS
from edgekit.tflite.ir import Array
from edgekit.training.tf_function.grids import Grid
from edgekit.training.tf_function.quantized import (
    cast_straight_through,
    compute_gradient_factor,
    fake_quantize,
    round_straight_through,
    scale_gradient,
)

_TINY = float(np.finfo(np.float32).tiny)
_NARROW = {"float16", "bfloat16"}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
# Positions of inputs that are settings or statistics and are not learned, by operator.
_NOT_LEARNED: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4),
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "DequantizeLinear": (1, 2),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1, 2),
    "Pad": (2,),
    "Pow": (1,),
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "Resize": (1, 2),
    "Upsample": (1,),
}
# The runtimes expect a fixed scale of the outputs of these operators.
_FIXED_RANGES = {"LogSoftmax", "Sigmoid", "Softmax", "Tanh"}
_LEAST_SHARE = 1e-3  # lower bound of a learned scale, as a share of its initial value


@dataclass(frozen=True, kw_only=True, eq=False)
class Parameter:
    """Initializer that is learned.

    Args:
        variable: its value in ONNX's layout, float32.
        grid: of a weight that is stored as integers; ``None`` for floats.
        dtype: type in which floats are stored.
    """

    variable: Any
    grid: Grid | None = None
    dtype: str = "float32"

    @property
    def grid_scale(self) -> str:
        """Return the name of the initializer that holds the scales; empty for floats."""
        return self.grid.scale if self.grid else ""

    def read(self, learned: Any) -> Any:  # noqa: ANN401
        """Return the value as the graph reads it, rounded to what the file can store.

        Args:
            learned: scales that replace the stored ones; ``None`` keeps those.
        """
        grid = self.grid
        if grid is None:
            value = tf.convert_to_tensor(self.variable)
            return cast_straight_through(value, self.dtype) if self.dtype in _NARROW else value
        scales = grid.scales if learned is None else learned
        if grid.dtype == "int32":
            return self._round_bias(grid.spread(tf.stop_gradient(scales)))
        if learned is not None:
            share = np.prod(grid.shape) / grid.scales.size
            scales = scale_gradient(learned, compute_gradient_factor(share, grid.levels[1]))
        lowest, highest = (b.astype(np.float32) for b in grid.bounds)
        return fake_quantize(self.variable, tf.maximum(grid.spread(scales), _TINY), lowest, highest)

    def _round_bias(self, steps: Any) -> Any:  # noqa: ANN401
        steps = tf.maximum(steps, _TINY)
        return round_straight_through(self.variable / steps) * steps


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


def find_parameters(
    proto: ModelProto, grids: Mapping[str, Grid], scale_names: Collection[str]
) -> dict[str, Parameter]:
    """Find the learnable weights of a graph, stored as floats or integers, by initializer name.

    Scalars, statistics of BatchNormalization, scales and settings of operators are not learned.

    Args:
        proto: the model.
        grids: of the weights that are stored as integers, by initializer name.
        scale_names: initializers that hold the scales of these grids.
    """
    stored = collect_constants(proto)
    left_out = _find_settings(proto) | set(scale_names)
    parameters: dict[str, Parameter] = {}
    for name, tensor in stored.items():
        if tensor.data_type in _FLOATS and tensor.dims and name not in left_out:
            array = numpy_helper.to_array(tensor)
            parameters[name] = Parameter(
                variable=_make_variable(name, array), dtype=array.dtype.name
            )
    for name, grid in grids.items():
        values = grid.real(numpy_helper.to_array(stored[name]))
        parameters[name] = Parameter(variable=_make_variable(name, values), grid=grid)
    return parameters


def _make_variable(name: str, value: Array) -> Any:  # noqa: ANN401
    legal_name = "".join(c if c.isalnum() else "_" for c in name) or "_"
    return tf.Variable(value.astype(np.float32), name=legal_name)


def _find_settings(proto: ModelProto) -> set[str]:
    return {
        node.input[position]
        for graph in iter_graphs(proto.graph)
        for node in graph.node
        for position in _NOT_LEARNED.get(node.op_type, ())
        if position < len(node.input)
    }


def find_learnable_scales(
    proto: ModelProto, grids: Mapping[str, Grid], fixed: Collection[str]
) -> dict[str, Array]:
    """Find the learnable scales and their initial values, by initializer name.

    Not learned are scales that are computed, scales of int32 biases, of the inputs of the graph and
    of operators whose outputs have a fixed range, and a DequantizeLinear's copy of its
    QuantizeLinear's scale (``find_shared_scales``).

    Args:
        proto: the model.
        grids: of the weights that are stored as integers, by initializer name.
        fixed: initializers of other scales that are not learned.
    """
    stored = collect_constants(proto)
    left_out = {*fixed, *find_shared_scales(proto), *_find_fixed_scales(proto)}
    names = {grid.scale for grid in grids.values() if grid.dtype != "int32"}
    for node, name in _iter_scale_reads(proto):
        if _is_bias(node, stored):
            left_out.add(name)
        names.add(name)
    scales = {name: stored[name] for name in sorted(names - left_out) if name in stored}
    return {
        name: numpy_helper.to_array(tensor).astype(np.float32)
        for name, tensor in scales.items()
        if tensor.data_type in _FLOATS
    }


def _find_fixed_scales(proto: ModelProto) -> set[str]:
    """Find the scales of graph inputs and of activations whose range an operator fixes."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    inputs = {value.name for value in proto.graph.input}
    fixed: set[str] = set()
    for node in proto.graph.node:
        source = node.input[0] if node.op_type == "QuantizeLinear" else ""
        while source in makers and makers[source].op_type in MOVING_OPS:
            source = makers[source].input[0]
        maker = makers.get(source)
        if source in inputs or (maker is not None and maker.op_type in _FIXED_RANGES):
            fixed.add(node.input[1])
    return fixed


def find_bias_factors(proto: ModelProto) -> dict[str, tuple[str, str]]:
    """Map the scale of each int32 bias to the scales of its layer's input and weight."""
    stored = collect_constants(proto)
    makers = {name: node for node in proto.graph.node for name in node.output}
    factors: dict[str, tuple[str, str]] = {}
    for node in proto.graph.node:
        if node.op_type not in BIASED_OPS or len(node.input) < 3:
            continue
        names = [_find_scale_name(makers.get(name), stored) for name in node.input[:3]]
        if all(names):
            factors.setdefault(names[2], (names[0], names[1]))
    return factors


def _find_scale_name(maker: NodeProto | None, stored: Mapping[str, TensorProto]) -> str:
    if maker is None or maker.op_type != "DequantizeLinear":
        return ""
    return str(maker.input[1]) if maker.input[1] in stored else ""


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
