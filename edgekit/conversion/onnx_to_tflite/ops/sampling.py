"""Conversion rule of GridSample: sampling of images at computed coordinates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import channels_last
from edgekit.conversion.onnx_to_tflite.ops.slicing import slice_tensor
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Tensor

_LINEAR = ("linear", "bilinear")


def _grid_sample(low: Lowering, node: NodeProto) -> None:
    """Convert GridSample of images: gather pixels by index, and weight them by their distance."""
    value = low.value(node, 0)
    mode = get_attribute(node, "mode", "linear")
    if len(value.order) != 4 or mode not in (*_LINEAR, "nearest"):
        raise low.refusal(
            node,
            f"samples {len(value.order) - 2} dimensions with mode {mode}, which is not supported",
        )
    order = channels_last(4)
    image = low.to_order(value, order)
    batch, height, width, channels = image.shape
    rows = low.reshape(image, (batch * height * width, channels))
    grid = low.plain(node, 1)
    across, down = (
        _scale_coordinates(low, node, slice_tensor(low, grid, {3: range(at, at + 1)}), size)
        for at, size in ((0, width), (1, height))
    )
    total: Tensor | None = None
    for x, x_share in _find_neighbors(low, across, mode):
        for y, y_share in _find_neighbors(low, down, mode):
            pixel = _gather_pixels(low, node, (rows, x, y), (batch, height, width))
            for share in (x_share, y_share):
                if share is not None:
                    pixel = low.emit("MUL", [pixel, share], pixel.shape)
            total = pixel if total is None else low.emit("ADD", [total, pixel], pixel.shape)
    if total is not None:
        low.bind(node, total, order)


def _emit_with_number(low: Lowering, kind: str, tensor: Tensor, number: float) -> Tensor:
    return low.emit(kind, [tensor, low.float32(number)], tensor.shape)


def _scale_coordinates(low: Lowering, node: NodeProto, shares: Tensor, size: int) -> Tensor:
    """Scale coordinates from [-1, 1] to entries of an axis, and apply the padding mode."""
    aligned = bool(get_attribute(node, "align_corners", 0))
    length = size - 1 if aligned else size
    first = 0.0 if aligned else -0.5
    middle = first + length / 2
    place = _emit_with_number(low, "ADD", _emit_with_number(low, "MUL", shares, length / 2), middle)
    padding = get_attribute(node, "padding_mode", "zeros")
    if padding == "reflection" and length:
        away = low.emit("ABS", [_emit_with_number(low, "SUB", place, first)], place.shape)
        away = _emit_with_number(low, "FLOOR_MOD", away, 2.0 * length)
        back = low.emit("ABS", [_emit_with_number(low, "SUB", away, length)], place.shape)
        place = low.emit("SUB", [low.float32(first + length), back], place.shape)
    if padding != "zeros":
        place = _clamp_index(low, place, size)
    return place


def _clamp_index(low: Lowering, place: Tensor, size: int) -> Tensor:
    return _emit_with_number(
        low, "MINIMUM", _emit_with_number(low, "MAXIMUM", place, 0.0), size - 1
    )


def _find_neighbors(low: Lowering, place: Tensor, mode: str) -> list[tuple[Tensor, Tensor | None]]:
    """Return the integer coordinates next to a coordinate, and their interpolation weights."""
    if mode == "nearest":
        return [(low.emit("ROUND", [place], place.shape), None)]
    before = low.emit("FLOOR", [place], place.shape)
    share = low.emit("SUB", [place, before], place.shape)
    rest = low.emit("SUB", [low.float32(1.0), share], place.shape)
    return [(before, rest), (_emit_with_number(low, "ADD", before, 1.0), share)]


def _gather_pixels(
    low: Lowering,
    node: NodeProto,
    read: tuple[Tensor, Tensor, Tensor],
    sizes: tuple[int, int, int],
) -> Tensor:
    """Gather pixels at integer coordinates; outside, they are zero if zeros are the padding."""
    (rows, x, y), (batch, height, width) = read, sizes
    inner_x, inner_y = _clamp_index(low, x, width), _clamp_index(low, y, height)
    base = np.arange(batch, dtype=np.int32).reshape(batch, 1, 1) * height * width
    line = low.cast(_emit_with_number(low, "MUL", inner_y, width), "int32")
    flat = low.emit("ADD", [line, low.cast(inner_x, "int32")], x.shape, dtype="int32")
    flat = low.reshape(flat, x.shape[:3])
    flat = low.emit("ADD", [flat, low.store(base)], flat.shape, dtype="int32")
    shape = (*flat.shape, rows.shape[1])
    pixel = low.emit("GATHER", [rows, flat], shape, options={"axis": 0, "batch_dims": 0})
    if get_attribute(node, "padding_mode", "zeros") != "zeros":
        return pixel
    for place, inner in ((x, inner_x), (y, inner_y)):
        inside = low.emit("EQUAL", [place, inner], place.shape, dtype="bool")
        pixel = low.emit("SELECT_V2", [inside, pixel, low.float32(0.0)], shape)
    return pixel


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {"GridSample": _grid_sample}
