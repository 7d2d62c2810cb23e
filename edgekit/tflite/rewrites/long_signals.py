"""Faster layouts in LiteRT for Pad and Conv on long one-channel signals."""

from __future__ import annotations

import math

import numpy as np

from edgekit.tflite.ir import Array, LiteGraph, Op, Shape, Tensor, constant

# Output channels of the rewritten filter: as many as fill a vector register.
_AT_ONCE = 16
# A filter with more output channels than this fills the register by itself.
_MOST_RESULTS = 4
_LEAST_TAPS = 16


def speed_up_signals(graph: LiteGraph) -> None:
    """Rewrite Pad and long one-channel filters in place, so that kernels copy rows, not entries.

    The graph is fused and quantized already; quantized operators stay as they are.
    """
    for one in (graph, *graph.inner):
        ops: list[Op] = []
        for op in one.ops:
            ops.extend(_flatten_pad(op) or _block_filter(op) or [op])
        one.ops = ops


def _flatten_pad(op: Op) -> list[Op] | None:
    """Rewrite a Pad without trailing axes of size 1, as kernels copy runs along the last axis."""
    if op.op_type != "PAD" or op.inputs[0] is None or op.inputs[1] is None:
        return None
    source, pads, output = op.inputs[0], op.inputs[1].data, op.outputs[0]
    if pads is None or -1 in (*source.shape, *output.shape):
        return None
    rank = len(source.shape)
    while rank > 1 and source.shape[rank - 1] == 1 and not pads[rank - 1].any():
        rank -= 1
    if rank == len(source.shape):
        return None
    flat, padded = (
        _build_like(source, source.shape[:rank]),
        _build_like(output, output.shape[:rank]),
    )
    inner = Op(
        op_type="PAD",
        inputs=[flat, constant("pads", pads[:rank])],
        outputs=[padded],
        origin=op.origin,
    )
    return [_build_reshape(source, flat, op), inner, _build_reshape(padded, output, op)]


def _block_filter(op: Op) -> list[Op] | None:
    """Rewrite a long filter with few output channels to compute a block of outputs at each step.

    The signal is cut into blocks that become channels. The filter is stored once for each output
    position in the block, shifted by that position.
    """
    if op.op_type != "CONV_2D" or not _is_long_filter(op):
        return None
    image, weights, output = op.inputs[0], op.inputs[1], op.outputs[0]
    if image is None or weights is None or weights.data is None:
        return None
    results, _, taps, _ = weights.shape
    batch, stride = image.shape[0], op.options.get("stride_w", 1)
    count = _AT_ONCE // results
    block = count * stride
    steps = -(-output.shape[2] // count)
    span = -(-(taps + (count - 1) * stride) // block)
    length = (steps + span - 1) * block
    signal = _build_like(image, (batch, image.shape[2]))
    cut, fit = _fit_length(signal, length, op)
    rows = _build_like(image, (batch, 1, length // block, block))
    blocks = _build_like(output, (batch, 1, steps, count * results))
    conv = Op(
        op_type="CONV_2D",
        inputs=[
            rows,
            constant(weights.name, _shift_filter(weights.data, count, stride, span * block, block)),
            _repeat_bias(op, count, results),
        ],
        outputs=[blocks],
        options={**op.options, "stride_w": 1},
        origin=op.origin,
    )
    flat = _build_like(output, (batch, 1, steps * count, results))
    if flat.shape == output.shape:
        ends = [_build_reshape(blocks, output, op)]
    else:
        ends = [_build_reshape(blocks, flat, op), _build_slice(flat, output, op)]
    return [_build_reshape(image, signal, op), *cut, _build_reshape(fit, rows, op), conv, *ends]


def _is_long_filter(op: Op) -> bool:
    image, weights, output = op.inputs[0], op.inputs[1], op.outputs[0]
    if image is None or weights is None or weights.data is None or -1 in image.shape:
        return False
    if not image.dtype == weights.dtype == output.dtype == "float32":
        return False
    results, height, taps, channels = weights.shape
    plain = all(op.options.get(f"dilation_{side}_factor", 1) == 1 for side in "hw")
    valid = op.options.get("padding", "SAME") == "VALID"
    return (
        (height, channels, image.shape[1]) == (1, 1, 1)
        and plain
        and valid
        and results <= _MOST_RESULTS
        and taps >= _LEAST_TAPS
        and output.shape[2] >= 4 * _AT_ONCE
    )


def _shift_filter(weights: Array, count: int, stride: int, span: int, block: int) -> Array:
    """Return the filter shifted to each output position: (positions * outputs, 1, steps, block)."""
    results, _, taps, _ = weights.shape
    shifted = np.zeros((count, results, span), weights.dtype)
    for position in range(count):
        shifted[position, :, position * stride : position * stride + taps] = weights[:, 0, :, 0]
    return shifted.reshape(count * results, 1, span // block, block)


def _repeat_bias(op: Op, count: int, results: int) -> Tensor:
    bias = op.inputs[2] if len(op.inputs) > 2 else None
    values = np.zeros(results, np.float32) if bias is None or bias.data is None else bias.data
    return constant("bias", np.tile(values, count))


def _fit_length(signal: Tensor, length: int, op: Op) -> tuple[list[Op], Tensor]:
    """Pad a signal with zeros at its end, or cut its end off, to a length."""
    lacks = length - signal.shape[1]
    if not lacks:
        return [], signal
    fitted = _build_like(signal, (signal.shape[0], length))
    if lacks < 0:
        return [_build_slice(signal, fitted, op)], fitted
    pads = constant("pads", np.asarray([[0, 0], [0, lacks]], np.int32))
    return [Op(op_type="PAD", inputs=[signal, pads], outputs=[fitted], origin=op.origin)], fitted


def _build_slice(source: Tensor, output: Tensor, op: Op) -> Op:
    begin = constant("begin", np.zeros(len(output.shape), np.int32))
    size = constant("size", np.asarray(output.shape, np.int32))
    return Op(op_type="SLICE", inputs=[source, begin, size], outputs=[output], origin=op.origin)


def _build_reshape(source: Tensor, output: Tensor, op: Op) -> Op:
    if math.prod(source.shape) != math.prod(output.shape):
        raise ValueError(f"{source.shape} entries don't fit {output.shape}")
    shape = constant("shape", np.asarray(output.shape, np.int32))
    return Op(op_type="RESHAPE", inputs=[source, shape], outputs=[output], origin=op.origin)


def _build_like(tensor: Tensor, shape: Shape) -> Tensor:
    return Tensor(
        name=tensor.name, dtype=tensor.dtype, shape=shape, quantization=tensor.quantization
    )
