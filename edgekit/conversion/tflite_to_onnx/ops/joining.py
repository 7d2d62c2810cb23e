"""Conversion rules of concatenation, packing, splitting and padding."""

from __future__ import annotations

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import Order
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import align_inputs, normalize_axis, squeeze_axes
from edgekit.tflite.ir import Op


def concatenation(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert CONCATENATION to Concat; constants are repeated along a free batch axis."""
    inputs, order = align_inputs(builder, op, range(len(op.inputs)))
    axis = normalize_axis(op.options.get("axis", 0), len(order))
    if builder.free and axis:
        inputs = _repeat_constants(builder, op, inputs, order)
    name = builder.node("Concat", inputs, {"axis": order.index(axis)})
    builder.bind(op, name, order)


def _repeat_constants(
    builder: OnnxGraphBuilder, op: Op, inputs: list[str], order: Order
) -> list[str]:
    """Expand constants whose batch size is 1 to the batch size of the first computed input."""
    tensors = [builder.tensor(op, i) for i in range(len(op.inputs))]
    computed = next((i for i, t in enumerate(tensors) if not t.is_constant), None)
    if computed is None:
        return inputs
    result = list(inputs)
    for i, tensor in enumerate(tensors):
        if tensor.is_constant and tensor.shape[:1] == (1,):
            batch_axis = order.index(0)
            sizes = builder.node("Shape", [inputs[computed]])
            count = builder.node("Gather", [sizes, builder.ints(batch_axis)])
            ones = builder.ints(*[1] * batch_axis)
            behind = builder.ints(*[1] * (len(order) - batch_axis - 1))
            shape = builder.node("Concat", [ones, count, behind], {"axis": 0})
            result[i] = builder.node("Expand", [inputs[i], shape])
    return result


def pack(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert PACK: stack values along a new axis."""
    axis = normalize_axis(op.options.get("axis", 0), len(op.outputs[0].shape))
    axes = builder.ints(axis)
    parts = [builder.node("Unsqueeze", [builder.plain(op, i), axes]) for i in range(len(op.inputs))]
    builder.bind(op, builder.node("Concat", parts, {"axis": axis}))


def unpack(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert UNPACK: split an axis into one value per index, without that axis."""
    order = builder.order(op, 0)
    axis = normalize_axis(op.options.get("axis", 0), len(order))
    parts = _split(builder, op, 0, axis, [1] * len(op.outputs))
    for i, part in enumerate(parts):
        builder.bind(op, *squeeze_axes(builder, part, order, [axis]), output=i)


def split(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SPLIT into equal parts of an axis, which is the first input."""
    order = builder.order(op, 1)
    axis = normalize_axis(builder.integers(op, 0)[0], len(order))
    size = builder.require_shape(op, 1)[axis] // len(op.outputs)
    for i, part in enumerate(_split(builder, op, 1, axis, [size] * len(op.outputs))):
        builder.bind(op, part, order, output=i)


def split_v(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SPLIT_V into parts of given sizes, one of which may be -1 for the rest."""
    order = builder.order(op, 0)
    axis = normalize_axis(builder.integers(op, 2)[0], len(order))
    sizes = builder.integers(op, 1)
    if -1 in sizes:
        size = builder.require_shape(op, 0)[axis]
        sizes[sizes.index(-1)] = size - sum(n for n in sizes if n >= 0)
    for i, part in enumerate(_split(builder, op, 0, axis, sizes)):
        builder.bind(op, part, order, output=i)


def _split(
    builder: OnnxGraphBuilder, op: Op, position: int, axis: int, sizes: list[int]
) -> list[str]:
    order = builder.order(op, position)
    name = builder.read(builder.tensor(op, position), order)
    return builder.nodes(
        "Split", [name, builder.ints(*sizes)], len(sizes), {"axis": order.index(axis)}
    )


def pad(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert PAD with zeros and PADV2 with a given value."""
    order = builder.order(op, 0)
    inputs = [builder.read(builder.tensor(op, 0), order), _read_pads(builder, op, order)]
    if builder.has(op, 2):
        inputs.append(builder.plain(op, 2))
    builder.bind(op, builder.node("Pad", inputs), order)


def _read_pads(builder: OnnxGraphBuilder, op: Op, order: Order) -> str:
    if builder.array(op, 1) is not None:
        sizes = np.asarray(builder.integers(op, 1)).reshape(-1, 2)[list(order)]
        return builder.numbers(sizes.T.ravel().astype(np.int64))
    rows = builder.node("Gather", [builder.int64(op, 1), builder.ints(*order)])
    turned = builder.node("Transpose", [rows], {"perm": [1, 0]})
    return builder.node("Reshape", [turned, builder.ints(-1)])


def mirror_pad(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert MIRROR_PAD, which repeats the border entry (SYMMETRIC) or does not (REFLECT)."""
    order = builder.order(op, 0)
    name = builder.read(builder.tensor(op, 0), order)
    if op.options.get("mode", "REFLECT") == "REFLECT":
        inputs = [name, _read_pads(builder, op, order)]
        builder.bind(op, builder.node("Pad", inputs, {"mode": "reflect"}), order)
        return
    sizes = np.asarray(builder.integers(op, 1)).reshape(-1, 2)
    for axis, (before, after) in enumerate(sizes):
        if before or after:
            indices = np.arange(builder.require_shape(op, 0)[axis])
            picked = np.pad(indices, (before, after), mode="symmetric")
            inputs = [name, builder.numbers(picked)]
            name = builder.node("Gather", inputs, {"axis": order.index(axis)})
    builder.bind(op, name, order)


RULES: dict[str, Rule] = {
    "CONCATENATION": concatenation,
    "MIRROR_PAD": mirror_pad,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "UNPACK": unpack,
}
