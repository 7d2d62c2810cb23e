"""Operator fusion: activations, biases, scales, padding and HARD_SWISH in one kernel."""

from __future__ import annotations

import math

import numpy as np

from edgekit.tflite.ir import Array, LiteGraph, Op, Shape, Tensor, constant
from edgekit.tflite.rewriter import (
    GraphRewriter,
    build_like,
    int32,
    read_float_constant,
    read_number,
    split_operands,
    sweep,
)

# Kinds whose kernels can clamp their output (fused activation).
_CLAMPING = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV",
    "AVERAGE_POOL_2D", "MAX_POOL_2D",
}  # fmt: skip
_CLAMPS = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def fuse(graph: LiteGraph) -> None:
    """Fuse operators that one kernel can compute, in place.

    The result is the same up to float rounding. Quantized integers stay as they are: nothing is
    dequantized for the sake of a fusion.

    Args:
        graph: Graph after constant folding.
    """
    sweep(graph, _fuse_clamp, "MINIMUM", "MAXIMUM")
    sweep(graph, _fuse_hard_swish, "MUL", "DIV")
    sweep(graph, _replace_constant_product, "BATCH_MATMUL")
    sweep(graph, _fuse_bias, *_LAYERS)
    sweep(graph, _fuse_scale, *_LAYERS)
    sweep(graph, _fuse_padding, "CONV_2D", "DEPTHWISE_CONV_2D")
    sweep(graph, _fuse_activation, "RELU", "RELU6", "RELU_N1_TO_1")


def get_activation(op: Op) -> str:
    """Return the fused activation of an operator; ``NONE`` where it has none."""
    return str(op.options.get("fused_activation_function", "NONE"))


# ---------------------------------------------------------------- activations


def _fuse_clamp(rewriter: GraphRewriter, op: Op) -> None:
    """Replace MAXIMUM and MINIMUM with constants by the activation that they compute."""
    outer = _read_bound(op)
    if outer is None:
        return
    source, low, high = outer
    before = rewriter.producer(source, "MINIMUM", "MAXIMUM")
    inner = None if before is None else _read_bound(before)
    if inner is not None and inner[1] <= high and low <= inner[2]:
        op_type = _CLAMPS.get((max(low, inner[1]), min(high, inner[2])))
        if op_type is not None:
            rewriter.change_op(op, op_type, [inner[0]])
            return
    if (low, high) in _CLAMPS and rewriter.only_reader(op.outputs[0]) is None:
        rewriter.change_op(op, _CLAMPS[(low, high)], [source])
    elif (low, high) == (0.0, math.inf) and not _is_bounded_later(rewriter, op):
        rewriter.change_op(op, "RELU", [source])


def _is_bounded_later(rewriter: GraphRewriter, op: Op) -> bool:
    return any(r.op_type in ("MINIMUM", "MAXIMUM") for r in rewriter.readers(op.outputs[0]))


def _read_bound(op: Op) -> tuple[Tensor, float, float] | None:
    parts = split_operands(op)
    limit = None if parts is None else read_number(parts[1])
    if parts is None or limit is None or parts[0].shape != op.outputs[0].shape:
        return None
    return (parts[0], limit, math.inf) if op.op_type == "MAXIMUM" else (parts[0], -math.inf, limit)


def _fuse_activation(rewriter: GraphRewriter, op: Op) -> None:
    source = op.inputs[0]
    before = rewriter.producer(source)
    if before is None or source is None or before.op_type not in _CLAMPING:
        return
    if source.dtype != "float32" or rewriter.only_reader(source) is not op:
        return
    if get_activation(before) == "NONE":
        before.options["fused_activation_function"] = op.op_type
        rewriter.absorb(before, op)


def _fuse_hard_swish(rewriter: GraphRewriter, op: Op) -> None:
    """Replace ``x * relu6(x + 3) / 6``, in its usual forms, by HARD_SWISH."""
    source = _match_product_over_six(rewriter, op) or _match_gated_product(rewriter, op)
    if source is not None and source.shape == op.outputs[0].shape:
        rewriter.change_op(op, "HARD_SWISH", [source])


def _match_product_over_six(rewriter: GraphRewriter, op: Op) -> Tensor | None:
    """Return x if an operator computes ``(x * relu6(x + 3)) / 6``."""
    inner = _match_division_by_six(op)
    product = rewriter.producer(inner, "MUL")
    if product is None:
        return None
    return next(
        (x for x, gate in _pair_operands(product) if _match_relu6(rewriter, gate) is x), None
    )


def _match_gated_product(rewriter: GraphRewriter, op: Op) -> Tensor | None:
    """Return x if a MUL computes ``x * (relu6(x + 3) / 6)`` or ``x * clip(x / 6 + 0.5, 0, 1)``."""
    if op.op_type != "MUL":
        return None
    for x, gate in _pair_operands(op):
        sixth = rewriter.producer(gate, "MUL", "DIV")
        if sixth is not None and _match_relu6(rewriter, _match_division_by_six(sixth)) is x:
            return x
        if _match_hard_sigmoid(rewriter, gate) is x:
            return x
    return None


def _pair_operands(op: Op) -> list[tuple[Tensor, Tensor]]:
    left, right = op.inputs[0], op.inputs[1]
    return [] if left is None or right is None else [(left, right), (right, left)]


def _match_division_by_six(op: Op) -> Tensor | None:
    """Return the tensor that an operator divides by 6, or multiplies by 1/6."""
    parts = split_operands(op)
    factor = None if parts is None else read_number(parts[1])
    if parts is None or factor is None or get_activation(op) != "NONE":
        return None
    if op.op_type == "DIV":
        return parts[0] if factor == 6 and parts[1] is op.inputs[1] else None
    return parts[0] if op.op_type == "MUL" and abs(factor - 1 / 6) < 1e-6 else None


def _match_relu6(rewriter: GraphRewriter, tensor: Tensor | None) -> Tensor | None:
    """Return x if a tensor is ``relu6(x + 3)``."""
    clamp = rewriter.producer(tensor, "RELU6")
    source = None if clamp is None else clamp.inputs[0]
    return _match_addition(rewriter, source, 3.0)


def _match_hard_sigmoid(rewriter: GraphRewriter, tensor: Tensor | None) -> Tensor | None:
    """Return x if a tensor is ``clip(x / 6 + 0.5, 0, 1)``."""
    clamp = rewriter.producer(tensor, "RELU_0_TO_1", "MINIMUM", "MAXIMUM")
    if clamp is None:
        return None
    if clamp.op_type == "RELU_0_TO_1":
        source = clamp.inputs[0]
    else:
        outer = _read_bound(clamp)
        before = (
            None if outer is None else rewriter.producer(outer[0], "MINIMUM", "MAXIMUM", "RELU")
        )
        inner = None if before is None else _read_lower_bound(before)
        if outer is None or inner is None:
            return None
        if (max(outer[1], inner[1]), min(outer[2], inner[2])) != (0.0, 1.0):
            return None
        source = inner[0]
    scaled = rewriter.producer(_match_addition(rewriter, source, 0.5), "MUL", "DIV")
    return None if scaled is None else _match_division_by_six(scaled)


def _read_lower_bound(op: Op) -> tuple[Tensor, float, float] | None:
    if op.op_type != "RELU":
        return _read_bound(op)
    return None if op.inputs[0] is None else (op.inputs[0], 0.0, math.inf)


def _match_addition(rewriter: GraphRewriter, tensor: Tensor | None, addend: float) -> Tensor | None:
    add = rewriter.producer(tensor, "ADD")
    parts = None if add is None or get_activation(add) != "NONE" else split_operands(add)
    return parts[0] if parts is not None and read_number(parts[1]) == addend else None


# ---------------------------------------------------------------- layers


def _replace_constant_product(rewriter: GraphRewriter, op: Op) -> None:
    """Replace a BATCH_MATMUL whose right operand is one stored matrix by FULLY_CONNECTED."""
    left, right = op.inputs[0], op.inputs[1]
    if left is None or right is None or op.options.get("adj_x") or len(left.shape) < 2:
        return
    dequantize = rewriter.producer(right, "DEQUANTIZE")
    stored = right if dequantize is None else dequantize.inputs[0]
    matrix = right.shape[-2:]
    if stored is None or not stored.is_constant or math.prod(right.shape) != math.prod(matrix):
        return
    if right.shape != matrix:
        right = rewriter.insert(
            op, "RESHAPE", [right, int32(matrix)], build_like(right, (matrix[0], matrix[1]))
        )
    if not op.options.get("adj_y"):
        shape = (matrix[1], matrix[0])
        right = rewriter.insert(op, "TRANSPOSE", [right, int32([1, 0])], build_like(right, shape))
    rank = len(op.outputs[0].shape)
    if rank != len(left.shape):
        return
    rewriter.change_op(op, "FULLY_CONNECTED", [left, right, None], {"keep_num_dims": True})


def _count_channels(op: Op) -> int:
    """Return the number of output channels of a layer."""
    return op.outputs[0].shape[-1]


def _broadcast_to_channels(array: Array, op: Op) -> Array | None:
    """Return a constant as one entry per output channel; ``None`` if it varies along other axes."""
    channels = _count_channels(op)
    if array.ndim > len(op.outputs[0].shape) or array.size not in (1, channels):
        return None
    if array.size > 1 and array.shape[-1] != channels:
        return None
    return np.broadcast_to(array.ravel(), (channels,))


def _find_follower(rewriter: GraphRewriter, op: Op, *op_types: str) -> tuple[Op, Tensor] | None:
    """Find the only reader of a layer, and its other operand, if it is of the given types."""
    if get_activation(op) != "NONE" or op.outputs[0].dtype != "float32":
        return None
    later = rewriter.only_reader(op.outputs[0])
    if later is None or later.op_type not in op_types or get_activation(later) != "NONE":
        return None
    if later.outputs[0].shape != op.outputs[0].shape:
        return None
    other = later.inputs[1] if later.inputs[0] is op.outputs[0] else later.inputs[0]
    return None if other is None or other is op.outputs[0] else (later, other)


def _get_bias(op: Op) -> Tensor | None:
    return op.inputs[2] if len(op.inputs) > 2 else None


def _fuse_bias(rewriter: GraphRewriter, op: Op) -> None:
    follower = _find_follower(rewriter, op, "ADD")
    if follower is None:
        return
    later, other = follower
    bias, added = _get_bias(op), read_float_constant(other)
    if added is not None and (bias is None or read_float_constant(bias) is not None):
        row = _broadcast_to_channels(added, op)
        if row is None:
            return
        total = row if bias is None else row + read_float_constant(bias)
        fused_bias = constant(other.name, np.asarray(total, np.float32))
    elif _is_absent(bias) and _is_dequantized_row(rewriter, other, _count_channels(op)):
        fused_bias = other
        if len(other.shape) != 1:
            shape = (_count_channels(op),)
            fused_bias = rewriter.insert(
                op, "RESHAPE", [other, int32(shape)], build_like(other, shape)
            )
    else:
        return
    rewriter.set_inputs(op, [*op.inputs[:2], fused_bias])
    rewriter.absorb(op, later)


def _is_absent(bias: Tensor | None) -> bool:
    return bias is None or (bias.data is not None and not bias.data.any())


def _is_dequantized_row(rewriter: GraphRewriter, tensor: Tensor, channels: int) -> bool:
    producer = rewriter.producer(tensor, "DEQUANTIZE")
    stored = None if producer is None else producer.inputs[0]
    if stored is None or not stored.is_constant or stored.dtype != "int32":
        return False
    return tensor.shape[-1:] == (channels,) == (math.prod(tensor.shape),)


def _fuse_scale(rewriter: GraphRewriter, op: Op) -> None:
    """Fold a following MUL with a constant into a layer's weights and bias."""
    follower = _find_follower(rewriter, op, "MUL")
    weight, bias = op.inputs[1], _get_bias(op)
    stored = read_float_constant(weight)
    if follower is None or stored is None or weight is None:
        return
    later, other = follower
    factor = read_float_constant(other)
    row = None if factor is None else _broadcast_to_channels(factor, op)
    if row is None or (bias is not None and read_float_constant(bias) is None):
        return
    axis = stored.ndim - 1 if op.op_type == "DEPTHWISE_CONV_2D" else 0
    scale_shape: Shape = tuple(-1 if position == axis else 1 for position in range(stored.ndim))
    inputs = [op.inputs[0], constant(weight.name, stored * row.reshape(scale_shape))]
    if bias is not None and bias.data is not None:
        inputs.append(constant(bias.name, bias.data * row))
    rewriter.set_inputs(op, inputs)
    rewriter.absorb(op, later)
    _fuse_bias(rewriter, op)


# ---------------------------------------------------------------- pads


def _fuse_padding(rewriter: GraphRewriter, op: Op) -> None:
    """Replace a zero PAD before a VALID convolution by SAME padding where both are equal."""
    pad = rewriter.producer(op.inputs[0], "PAD")
    if pad is None or op.options.get("padding") != "VALID" or pad.inputs[1] is None:
        return
    image, amounts, weight = pad.inputs[0], pad.inputs[1].data, op.inputs[1]
    if image is None or amounts is None or weight is None or len(image.shape) != 4:
        return
    sides = [(int(before), int(after)) for before, after in amounts]
    if sides[0] != (0, 0) or sides[3] != (0, 0):
        return
    for axis, name in ((1, "h"), (2, "w")):
        stride = op.options.get(f"stride_{name}", 1)
        reach = (weight.shape[axis] - 1) * op.options.get(f"dilation_{name}_factor", 1) + 1
        size = image.shape[axis]
        if sides[axis] != compute_same_padding(size, reach, stride):
            return
        if op.outputs[0].shape[axis] != -(-size // stride):
            return
    op.options["padding"] = "SAME"
    rewriter.set_inputs(op, [image, *op.inputs[1:]])


def compute_same_padding(size: int, reach: int, stride: int) -> tuple[int, int]:
    """Compute the padding before and after an axis that TFLite's SAME adds.

    Args:
        size: Size of the axis.
        reach: Extent of the kernel along it, dilation included.
        stride: Stride along it.
    """
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2
