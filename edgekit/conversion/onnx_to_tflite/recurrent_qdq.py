"""Recurrent layers with integer weights, rewritten as float layers behind DequantizeLinear.

``DynamicQuantizeLSTM`` is onnxruntime's integer LSTM: it has integer weights, rounds its input to 8
bits with one scale for all steps, and rounds its state to 8 bits at each step. The float layer uses
the same weights and rounds the input the same way; it does not round the state, which lies between
-1 and 1. A bidirectional layer becomes two layers, because a DequantizeLinear has scales along one
axis only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.operators import RECURRENT_OPS, is_standard
from edgekit.tflite.ir import Array

INTEGER_LSTM = "DynamicQuantizeLSTM"
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}  # of one direction
# Activations that take an alpha, and those that take a beta (ONNX LSTM).
_WITH_ALPHA = {"affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu"}
_WITH_BETA = {"affine", "hardsigmoid", "scaledtanh"}
_FEW_ACTIVATIONS = ("activations", "activation_alpha", "activation_beta")


@dataclass(frozen=True, kw_only=True)
class StoredIntegers:
    """A weight stored as integers, with scales and zero points that broadcast against it."""

    integers: Array
    scales: Array
    zero_points: Array | None = None

    def select_direction(self, direction: int) -> StoredIntegers:
        """Return the weight of one direction, with a first axis of size 1."""
        zeros = self.zero_points

        def part(array: Array) -> Array:
            return array[direction : direction + 1] if array.shape[0] > 1 else array

        return StoredIntegers(
            integers=self.integers[direction : direction + 1],
            scales=part(self.scales),
            zero_points=None if zeros is None else part(zeros),
        )

    @property
    def axis(self) -> int | None:
        """Return the axis along which scales differ; 0 for one scale, ``None`` for several axes."""
        axes = [axis for axis, size in enumerate(self.scales.shape) if size > 1]
        return None if len(axes) > 1 else (axes or [0])[0]

    def dequantize(self, index: GraphIndex, name: str) -> tuple[NodeProto, str]:
        """Build the DequantizeLinear of a weight (scales along one axis), and name its output."""
        scales: Array = self.scales.astype(np.float32)
        one = scales.size == 1
        shape = () if one else (scales.size,)
        add = index.add_int4 if self.integers.dtype.name == "int4" else index.add_constant
        inputs = [add(f"{name}_integers", self.integers)]
        inputs.append(index.add_constant(f"{name}_scale", scales.reshape(shape)))
        if self.zero_points is not None:
            zeros = np.broadcast_to(self.zero_points, scales.shape)
            inputs.append(index.add_constant(f"{name}_zero", zeros.reshape(shape)))
        real_name = index.fresh(f"{name}_real")
        node = helper.make_node("DequantizeLinear", inputs, [real_name], name=real_name)
        if not one:
            node.attribute.append(helper.make_attribute("axis", self.axis or 0))
        return node, real_name


def is_integer_lstm(node: NodeProto) -> bool:
    """Return whether a node is onnxruntime's integer LSTM."""
    return bool(node.op_type == INTEGER_LSTM and node.domain == "com.microsoft")


def read_integer_lstm_weights(
    index: GraphIndex, node: NodeProto
) -> tuple[StoredIntegers, StoredIntegers] | None:
    """Read the weights of an integer LSTM in ONNX layout; ``None`` where they are not stored."""
    weights = []
    for position, scale in ((1, 8), (2, 10)):
        arrays = [index.constant(node.input[n]) for n in (position, scale, scale + 1)]
        if any(array is None for array in arrays):
            return None
        integers, scales, zeros = (np.asarray(array) for array in arrays)
        scale_shape = (*scales.shape, 1) if scales.ndim == 2 else (scales.size, 1, 1)
        zeros_wide = (*zeros.shape, 1) if zeros.ndim == 2 else (zeros.size, 1, 1)
        weights.append(
            StoredIntegers(
                integers=np.ascontiguousarray(integers.transpose(0, 2, 1)),
                scales=scales.reshape(scale_shape),
                zero_points=zeros.reshape(zeros_wide) if zeros.any() else None,
            )
        )
    return weights[0], weights[1]


def dequantize_layer(
    index: GraphIndex, node: NodeProto, weights: Sequence[StoredIntegers]
) -> list[NodeProto]:
    """Rewrite a recurrent layer with dequantized weights, one node for each direction.

    Args:
        index: Index of the layer's graph.
        node: The layer; an integer LSTM or a standard recurrent layer.
        weights: Input weights and recurrent weights, in ONNX layout.
    """
    op_type = node.op_type.removeprefix("DynamicQuantize")
    rounded = _round_input(index, node) if is_integer_lstm(node) else []
    if weights[0].integers.shape[0] > 1:
        return [*rounded, *_split_directions(index, node, op_type, weights)]
    nodes, names = _dequantize_weights(index, node, weights)
    return [
        *rounded,
        *nodes,
        _build_layer(node, op_type, _list_inputs(node, names), list(node.output)),
    ]


def _round_input(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    """Round the input of an integer LSTM to 8 bits, as the layer itself does."""
    source = node.input[0]
    quantized = [index.fresh(f"{source}_{stem}") for stem in ("integers", "scale", "zero")]
    node.input[0] = index.fresh(f"{source}_rounded")
    return [
        helper.make_node("DynamicQuantizeLinear", [source], quantized, name=quantized[0]),
        helper.make_node("DequantizeLinear", quantized, [node.input[0]], name=node.input[0]),
    ]


def _dequantize_weights(
    index: GraphIndex, node: NodeProto, weights: Sequence[StoredIntegers]
) -> tuple[list[NodeProto], list[str]]:
    stem = node.name or node.output[0] or "recurrent"
    pairs = [
        weight.dequantize(index, f"{stem}_{letter}")
        for weight, letter in zip(weights, "wr", strict=True)
    ]
    return [dequantize for dequantize, _ in pairs], [output for _, output in pairs]


def _list_inputs(node: NodeProto, weights: Sequence[str]) -> list[str]:
    """Return the input names of the standard operator, up to the peepholes of an LSTM."""
    return [node.input[0], *weights, *node.input[3:8]]


def _build_layer(node: NodeProto, op_type: str, inputs: list[str], outputs: list[str]) -> NodeProto:
    layer = helper.make_node(op_type, inputs, outputs, name=node.name)
    layer.attribute.extend(node.attribute)
    return layer


def _split_directions(
    index: GraphIndex, node: NodeProto, op_type: str, weights: Sequence[StoredIntegers]
) -> Iterator[NodeProto]:
    parts: list[list[str]] = []
    for side, direction in enumerate(("forward", "reverse")):
        nodes, names = _dequantize_weights(
            index, node, [weight.select_direction(side) for weight in weights]
        )
        yield from nodes
        inputs = _list_inputs(node, names)
        for position in (3, 5, 6, 7):  # bias, initial states, peepholes
            if len(inputs) > position and inputs[position]:
                part = index.fresh(f"{inputs[position]}_{direction}")
                side_index = index.add_constant("side", np.array([side]))
                yield helper.make_node("Gather", [inputs[position], side_index], [part], axis=0)
                inputs[position] = part
        outputs = [index.fresh(f"{name}_{direction}") if name else "" for name in node.output]
        layer = _build_layer(node, op_type, inputs, outputs)
        layer.name = f"{node.name}/{direction}"
        _set_direction(layer, op_type, direction, side)
        yield layer
        parts.append(outputs)
    for position, name in enumerate(node.output):
        if name:
            halves = [outputs[position] for outputs in parts]
            yield helper.make_node("Concat", halves, [name], axis=0 if position else 1)


def _set_direction(node: NodeProto, op_type: str, direction: str, side: int) -> None:
    """Set the attributes of one direction on its node."""
    attributes = [a for a in node.attribute if a.name not in (*_FEW_ACTIVATIONS, "direction")]
    attributes.append(helper.make_attribute("direction", direction))
    names = read_attribute(node, "activations", None)
    if isinstance(names, list):
        activations = [each.decode().lower() for each in names]
        first, count = side * _ACTIVATIONS[op_type], _ACTIVATIONS[op_type]
        attributes.append(helper.make_attribute("activations", names[first : first + count]))
        for key, activations_with_number in (
            ("activation_alpha", _WITH_ALPHA),
            ("activation_beta", _WITH_BETA),
        ):
            numbers = read_attribute(node, key, None)
            if isinstance(numbers, list):
                skipped_numbers = sum(
                    word in activations_with_number for word in activations[:first]
                )
                own_numbers = sum(
                    word in activations_with_number for word in activations[first : first + count]
                )
                if part := numbers[skipped_numbers : skipped_numbers + own_numbers]:
                    attributes.append(helper.make_attribute(key, part))
    del node.attribute[:]
    node.attribute.extend(attributes)


def is_bidirectional(node: NodeProto) -> bool:
    """Return whether a standard recurrent layer is bidirectional, with time as first axis."""
    if not is_standard(node) or node.op_type not in RECURRENT_OPS:
        return False
    both = read_attribute(node, "direction", b"forward") == b"bidirectional"
    return both and read_attribute(node, "layout", 0) == 0
