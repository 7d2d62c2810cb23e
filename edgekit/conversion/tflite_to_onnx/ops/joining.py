"""Conversion rules of concatenation, packing, splitting and padding."""

from __future__ import annotations

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import Order
from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import align_inputs, normalize_axis, squeeze_axes
from edgekit.tflite.ir import Op


def concatenation(lifting: Lifting, op: Op) -> None:
    """Convert CONCATENATION to Concat; constants are repeated along a free batch axis."""
    inputs, order = align_inputs(lifting, op, range(len(op.inputs)))
    axis = normalize_axis(op.options.get("axis", 0), len(order))
    if lifting.free and axis:
        inputs = _repeat_constants(lifting, op, inputs, order)
    name = lifting.node("Concat", inputs, {"axis": order.index(axis)})
    lifting.bind(op, name, order)


def _repeat_constants(lifting: Lifting, op: Op, inputs: list[str], order: Order) -> list[str]:
    """Expand constants whose batch size is 1 to the batch size of the first computed input."""
    tensors = [lifting.tensor(op, i) for i in range(len(op.inputs))]
    computed = next((i for i, t in enumerate(tensors) if not t.is_constant), None)
    if computed is None:
        return inputs
    made = list(inputs)
    for i, tensor in enumerate(tensors):
        if tensor.is_constant and tensor.shape[:1] == (1,):
            where = order.index(0)
            sizes = lifting.node("Shape", [inputs[computed]])
            count = lifting.node("Gather", [sizes, lifting.ints(where)])
            ones = lifting.ints(*[1] * where)
            behind = lifting.ints(*[1] * (len(order) - where - 1))
            shape = lifting.node("Concat", [ones, count, behind], {"axis": 0})
            made[i] = lifting.node("Expand", [inputs[i], shape])
    return made


def pack(lifting: Lifting, op: Op) -> None:
    """Convert PACK: stack values along a new axis."""
    axis = normalize_axis(op.options.get("axis", 0), len(op.outputs[0].shape))
    where = lifting.ints(axis)
    parts = [
        lifting.node("Unsqueeze", [lifting.plain(op, i), where]) for i in range(len(op.inputs))
    ]
    lifting.bind(op, lifting.node("Concat", parts, {"axis": axis}))


def unpack(lifting: Lifting, op: Op) -> None:
    """Convert UNPACK: split an axis into one value per index, without that axis."""
    order = lifting.order(op, 0)
    axis = normalize_axis(op.options.get("axis", 0), len(order))
    parts = _split(lifting, op, 0, axis, [1] * len(op.outputs))
    for i, part in enumerate(parts):
        lifting.bind(op, *squeeze_axes(lifting, part, order, [axis]), output=i)


def split(lifting: Lifting, op: Op) -> None:
    """Convert SPLIT into equal parts of an axis, which is the first input."""
    order = lifting.order(op, 1)
    axis = normalize_axis(lifting.integers(op, 0)[0], len(order))
    size = lifting.require_shape(op, 1)[axis] // len(op.outputs)
    for i, part in enumerate(_split(lifting, op, 1, axis, [size] * len(op.outputs))):
        lifting.bind(op, part, order, output=i)


def split_v(lifting: Lifting, op: Op) -> None:
    """Convert SPLIT_V into parts of given sizes, one of which may be -1 for the rest."""
    order = lifting.order(op, 0)
    axis = normalize_axis(lifting.integers(op, 2)[0], len(order))
    sizes = lifting.integers(op, 1)
    if -1 in sizes:
        whole = lifting.require_shape(op, 0)[axis]
        sizes[sizes.index(-1)] = whole - sum(n for n in sizes if n >= 0)
    for i, part in enumerate(_split(lifting, op, 0, axis, sizes)):
        lifting.bind(op, part, order, output=i)


def _split(lifting: Lifting, op: Op, position: int, axis: int, sizes: list[int]) -> list[str]:
    order = lifting.order(op, position)
    name = lifting.read(lifting.tensor(op, position), order)
    return lifting.nodes(
        "Split", [name, lifting.ints(*sizes)], len(sizes), {"axis": order.index(axis)}
    )


def pad(lifting: Lifting, op: Op) -> None:
    """Convert PAD with zeros and PADV2 with a given value."""
    order = lifting.order(op, 0)
    inputs = [lifting.read(lifting.tensor(op, 0), order), _read_pads(lifting, op, order)]
    if lifting.has(op, 2):
        inputs.append(lifting.plain(op, 2))
    lifting.bind(op, lifting.node("Pad", inputs), order)


def _read_pads(lifting: Lifting, op: Op, order: Order) -> str:
    if lifting.array(op, 1) is not None:
        sizes = np.asarray(lifting.integers(op, 1)).reshape(-1, 2)[list(order)]
        return lifting.numbers(sizes.T.ravel().astype(np.int64))
    rows = lifting.node("Gather", [lifting.int64(op, 1), lifting.ints(*order)])
    turned = lifting.node("Transpose", [rows], {"perm": [1, 0]})
    return lifting.node("Reshape", [turned, lifting.ints(-1)])


def mirror_pad(lifting: Lifting, op: Op) -> None:
    """Convert MIRROR_PAD, which repeats the border entry (SYMMETRIC) or does not (REFLECT)."""
    order = lifting.order(op, 0)
    name = lifting.read(lifting.tensor(op, 0), order)
    if op.options.get("mode", "REFLECT") == "REFLECT":
        inputs = [name, _read_pads(lifting, op, order)]
        lifting.bind(op, lifting.node("Pad", inputs, {"mode": "reflect"}), order)
        return
    sizes = np.asarray(lifting.integers(op, 1)).reshape(-1, 2)
    for axis, (before, after) in enumerate(sizes):
        if before or after:
            whole = np.arange(lifting.require_shape(op, 0)[axis])
            picked = np.pad(whole, (before, after), mode="symmetric")
            inputs = [name, lifting.numbers(picked)]
            name = lifting.node("Gather", inputs, {"axis": order.index(axis)})
    lifting.bind(op, name, order)


LIFTS: dict[str, Rule] = {
    "CONCATENATION": concatenation,
    "MIRROR_PAD": mirror_pad,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "UNPACK": unpack,
}
