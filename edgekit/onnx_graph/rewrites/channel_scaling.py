"""Folding of per-channel scales and shifts into the weight and bias of the layer before them.

Folded are BatchNormalization, and Mul, Div, Add and Sub with a constant that varies along the
channels only. The layer is a Conv, ConvTranspose, Gemm or MatMul with a stored weight. A Reshape or
Transpose that keeps each channel whole may stand between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.operators import BIASED_OPS, is_standard
from edgekit.onnx_graph.shape_inference import Dims, infer_partial_shapes

Doubles = NDArray[np.float64]
_MOVES = {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"}


def fold_channel_scaling(proto: ModelProto) -> int:
    """Fold per-channel scales and shifts of the main graph, in place.

    Returns:
        Number of removed nodes.
    """
    index = GraphIndex(proto)
    folder = _Folder(index)
    nodes = list(index.graph.node)
    layers = [layer for node in nodes if (layer := _find_layer(index, node)) is not None]
    gone = sum(folder.fold(layer) for layer in layers)
    if gone:
        index.replace_nodes(list(folder.iter_remaining_nodes(nodes)))
        GraphIndex(proto).drop_unread_constants()
    return gone


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """Node with a stored weight that no other node reads.

    ``axis`` is the axis of the output channels in the weight, ``channel_axis`` their axis in the
    output, counted from the last. ``scales`` names the scales of a weight in weight-only QDQ.
    """

    node: NodeProto
    weight: str
    axis: int
    channels: int
    channel_axis: int
    scales: str = ""


def _find_layer(index: GraphIndex, node: NodeProto) -> _Layer | None:
    if not is_standard(node) or node.op_type not in (*BIASED_OPS, "MatMul"):
        return None
    reader = index.only_reader(node.input[1])
    if reader is None or node.input[0] in index.initializers:
        return None
    weight, scales = _find_weight(index, node.input[1])
    tensor = index.initializers.get(weight)
    if tensor is None or tensor.data_type != (TensorProto.INT8 if scales else TensorProto.FLOAT):
        return None
    output_channels = _find_output_channels(node, tuple(tensor.dims))
    if output_channels is None or not _has_foldable_bias(index, node, output_channels[1]):
        return None
    axis, channels, channel_axis = output_channels
    if scales:
        dequantize = index.producer[node.input[1]]
        fits = tuple(index.initializers[scales].dims) == (channels,)
        if not fits or read_attribute(dequantize, "axis", 1) != axis:
            return None
    return _Layer(
        node=node,
        weight=weight,
        axis=axis,
        channels=channels,
        channel_axis=channel_axis,
        scales=scales,
    )


def _find_weight(index: GraphIndex, name: str) -> tuple[str, str]:
    """Return the name of the stored weight, and the name of its scales if it is dequantized."""
    producer = index.producer.get(name)
    if producer is None or producer.op_type != "DequantizeLinear" or len(producer.input) != 2:
        return name, ""
    if any(each not in index.initializers for each in producer.input):
        return name, ""
    return producer.input[0], producer.input[1]


def _find_output_channels(node: NodeProto, dims: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return the output channels' axis in the weight, their number and their axis in the output."""
    rank = len(dims)
    if node.op_type == "MatMul":
        return (1, dims[1], -1) if rank == 2 else None
    if node.op_type == "Gemm":
        factors = [read_attribute(node, name, 1.0) for name in ("alpha", "beta")]
        axis = 0 if read_attribute(node, "transB", 0) else 1
        return (axis, dims[axis], -1) if factors == [1.0, 1.0] and rank == 2 else None
    if node.op_type == "Conv":
        return 0, dims[0], 1 - rank
    # Groups of a transposed convolution lie along the inputs.
    return (1, dims[1], 1 - rank) if read_attribute(node, "group", 1) == 1 else None


def _has_foldable_bias(index: GraphIndex, node: NodeProto, channels: int) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return True
    tensor = index.initializers.get(node.input[2])
    return (
        tensor is not None
        and tensor.data_type == TensorProto.FLOAT
        and tuple(tensor.dims) == (channels,)
    )


@dataclass
class _Chain:
    """Accumulated scale and shift behind a layer, and the nodes to remove."""

    scale: Doubles
    shift: Doubles
    removed: list[tuple[NodeProto, str]] = field(default_factory=list)  # node, value it reads
    moved: bool = False

    def compose(self, scale: Doubles | float, shift: Doubles | float) -> None:
        """Append a further scale and shift."""
        self.scale = self.scale * scale
        self.shift = self.shift * scale + shift

    @property
    def is_finite(self) -> bool:
        """Return whether scale and shift are finite."""
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())


class _Folder:
    """Folder of one layer after the other, which tracks the removed nodes."""

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self.removed_ids: set[int] = set()
        # Reshape nodes inserted before and after a MatMul, by the MatMul.
        self.before: dict[int, NodeProto] = {}
        self.behind: dict[int, NodeProto] = {}

    @cached_property
    def shapes(self) -> dict[str, Dims]:
        """Return the inferred shapes, computed at the first use."""
        return infer_partial_shapes(self.index.proto)

    def iter_remaining_nodes(self, nodes: list[NodeProto]) -> Iterator[NodeProto]:
        """Yield the remaining nodes and the nodes inserted around them."""
        for node in nodes:
            if id(node) in self.removed_ids:
                continue
            for neighbor in (self.before.get(id(node)), node, self.behind.get(id(node))):
                if neighbor is not None:
                    yield neighbor

    def fold(self, layer: _Layer) -> int:
        """Fold the scales and shifts behind a layer and return the number of removed nodes."""
        if id(layer.node) in self.removed_ids:
            return 0
        chain = self._follow(layer)
        # A product of higher rank has no bias: replacing one Add by another gains nothing.
        pays = self._can_have_bias(layer.node) or bool((chain.scale != 1).any())
        if not chain.removed or not pays or not chain.is_finite:
            return 0
        if not self._scale_weight(layer, chain.scale):
            return 0
        self._add_shift(layer, chain)
        for node, input_name in chain.removed:
            producer = self.index.producer[input_name]
            producer.output[list(producer.output).index(input_name)] = node.output[0]
            self.index.producer[node.output[0]] = producer
            self.removed_ids.add(id(node))
        return len(chain.removed)

    def _follow(self, layer: _Layer) -> _Chain:
        """Collect the scales and shifts behind a layer that can be folded."""
        zeros = np.zeros(layer.channels)
        chain = _Chain(scale=zeros + 1, shift=zeros)
        channel_axis: int | None = layer.channel_axis
        value = layer.node.output[0]
        while (node := self.index.only_reader(value)) is not None:
            if not is_standard(node):
                break
            if node.op_type in _MOVES and node.input[0] == value:
                channel_axis = self._track_channels(node, channel_axis, layer.channels)
            elif change := self._scale_and_shift(node, value, channel_axis, layer.channels):
                chain.compose(*change)
                chain.removed.append((node, value))
            else:
                break
            value = node.output[0]
        return chain

    # ------------------------------------------------------------ one node behind a layer

    def _scale_and_shift(
        self, node: NodeProto, value: str, channel_axis: int | None, channels: int
    ) -> tuple[Doubles | float, Doubles | float] | None:
        """Return the scale and shift that a node applies; ``None`` for other operations."""
        if node.op_type == "BatchNormalization":
            return self._fold_normalization(node, value, channel_axis, channels)
        if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(set(node.input)) != 2:
            return None
        first = node.input[0] == value
        vector = self._read_channel_vector(
            node.input[1 if first else 0], value, channel_axis, channels
        )
        if vector is None:
            return None
        if node.op_type == "Mul":
            return vector, 0.0
        if node.op_type == "Add":
            return 1.0, vector
        if node.op_type == "Sub":
            return (1.0, -vector) if first else (-1.0, vector)
        return (1 / vector, 0.0) if first and vector.all() else None

    def _fold_normalization(
        self, node: NodeProto, value: str, channel_axis: int | None, channels: int
    ) -> tuple[Doubles, Doubles] | None:
        rank = len(self.shapes.get(value, ()))
        if channel_axis is None or not rank or channel_axis != 1 - rank or node.input[0] != value:
            return None
        if read_attribute(node, "training_mode", 0) or any(node.output[1:]):
            return None
        stored = [self.index.initializers.get(name) for name in node.input[1:]]
        if any(t is None or tuple(t.dims) != (channels,) for t in stored):
            return None
        scale, bias, mean, variance = (
            self.index.float_constant(name).astype(np.float64) for name in node.input[1:]
        )
        epsilon = float(str(read_attribute(node, "epsilon", 1e-5)))
        with np.errstate(all="ignore"):  # the caller checks that the result is finite
            factor = scale / np.sqrt(variance + epsilon)
        return factor, bias - mean * factor

    def _read_channel_vector(
        self, name: str, value: str, channel_axis: int | None, channels: int
    ) -> Doubles | None:
        """Read a constant as one number per channel; ``None`` if it varies along other axes."""
        tensor = self.index.initializers.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return None
        dims = tuple(tensor.dims)
        if len(dims) > max(len(self.shapes.get(value, ())) if len(dims) > 1 else 1, 1):
            return None
        if math.prod(dims) != 1:
            has_channels = (
                channel_axis is not None
                and len(dims) >= -channel_axis
                and dims[channel_axis] == channels
            )
            if not has_channels or math.prod(dims) != channels:
                return None
        vector = self.index.float_constant(name).astype(np.float64).ravel()
        return np.broadcast_to(vector, (channels,))

    def _track_channels(
        self, node: NodeProto, channel_axis: int | None, channels: int
    ) -> int | None:
        """Return the channel axis behind a data movement node; ``None`` if it is not known."""
        before, after = (self.shapes.get(n) for n in (node.input[0], node.output[0]))
        if channel_axis is None or node.op_type == "Identity":
            return channel_axis
        if before is None or after is None or -channel_axis > len(before):
            return None
        if node.op_type == "Transpose":
            perm = read_attribute(node, "perm", None)
            order = list(perm) if isinstance(perm, list) else list(reversed(range(len(before))))
            return order.index(len(before) + channel_axis) - len(before)
        return _find_axis_after_reshape(before, after, channel_axis, channels)

    # ------------------------------------------------------------ the layer itself

    def _scale_weight(self, layer: _Layer, scale: Doubles) -> bool:
        """Scale the weight in place and return whether all results are finite."""
        shape = [1] * len(self.index.initializers[layer.weight].dims)
        shape[layer.axis] = -1
        if layer.scales:
            return self._scale_integers(layer, scale, shape)
        weight = self.index.float_constant(layer.weight)
        scaled = (weight * scale.reshape(shape)).astype(np.float32)
        if not np.isfinite(scaled).all():
            return False
        self._replace(layer.weight, scaled)
        return True

    def _scale_integers(self, layer: _Layer, scale: Doubles, shape: list[int]) -> bool:
        """Multiply the scales of a dequantized weight; a negative scale flips its integers."""
        scales = self.index.float_constant(layer.scales) * np.abs(scale)
        if not (scales > 0).all() or not np.isfinite(scales.astype(np.float32)).all():
            return False
        integers = numpy_helper.to_array(self.index.initializers[layer.weight])
        signed = np.clip(integers * np.sign(scale).astype(np.int16).reshape(shape), -127, 127)
        if (scale < 0).any():
            self._replace(layer.weight, signed.astype(np.int8))
        dequantize = self.index.producer[layer.node.input[1]]
        dequantize.input[1] = self.index.add_constant("s", scales.astype(np.float32))
        return True

    def _replace(self, name: str, value: NDArray[np.generic]) -> None:
        tensor = self.index.initializers[name]
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def _can_have_bias(self, node: NodeProto) -> bool:
        """Return whether a node has a bias input, or is a matrix product that Gemm can replace."""
        return node.op_type in BIASED_OPS or len(self.shapes.get(node.input[0], ())) == 2

    def _add_shift(self, layer: _Layer, chain: _Chain) -> None:
        node, shift = layer.node, chain.shift
        if self._can_have_bias(node):
            if node.op_type == "MatMul":
                node.op_type = "Gemm"
            biased = len(node.input) > 2 and bool(node.input[2])
            if biased:
                shift = shift + chain.scale * self.index.float_constant(node.input[2])
            if biased or shift.any():
                name = self.index.add_constant("b", shift.astype(np.float32))
                node.input[:] = [*node.input[:2], name]
            return
        if shift.any():
            self._insert_add(layer, shift.astype(np.float32))

    def _insert_add(self, layer: _Layer, shift: NDArray[np.float32]) -> None:
        """Add a shift behind a MatMul of more than two axes.

        If all sizes are known, the two become a Gemm between two Reshape nodes. onnxruntime does
        the same at load, but too late for the Gemm to be quantized.
        """
        node, dims = layer.node, self.shapes.get(layer.node.input[0], (None,))
        output, product = node.output[0], self.index.fresh("p")
        bias = self.index.add_constant("b", shift)
        node.output[0] = product
        if None in dims:
            behind = helper.make_node("Add", [product, bias], [output])
        else:
            flat = self.index.fresh("f")
            sizes = np.array([*dims[:-1], layer.channels], np.int64)
            names = [
                self.index.add_constant("n", shape) for shape in (np.array([-1, dims[-1]]), sizes)
            ]
            self.before[id(node)] = helper.make_node("Reshape", [node.input[0], names[0]], [flat])
            node.op_type = "Gemm"
            node.input[:] = [flat, node.input[1], bias]
            behind = helper.make_node("Reshape", [product, names[1]], [output])
            self.index.producer[flat] = self.before[id(node)]
        self.index.producer |= {product: node, output: behind}
        self.behind[id(node)] = behind


def _find_axis_after_reshape(
    before: Dims, after: Dims, channel_axis: int, channels: int
) -> int | None:
    """Find the channel axis behind a reshape that keeps it whole; ``None`` without one."""
    axis = len(before) + channel_axis
    for other, size in enumerate(after):
        if size != channels:
            continue
        sides = ((before[axis + 1 :], after[other + 1 :]), (before[:axis], after[:other]))
        if any(
            _count_entries(old) is not None and _count_entries(old) == _count_entries(new)
            for old, new in sides
        ):
            return other - len(after)
    return None


def _count_entries(dims: Dims) -> int | None:
    """Return the product of sizes; ``None`` if a dimension is free."""
    sizes = [size for size in dims if size is not None]
    return math.prod(sizes) if len(sizes) == len(dims) else None
