"""Conversion rule of GridSample: sampling of images at computed coordinates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import channels_last
from edgekit.conversion.onnx_to_tflite.ops.slicing import slice_tensor
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor

_LINEAR = ("linear", "bilinear")


def _grid_sample(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert GridSample of images: gather pixels by index, and weight them by their distance."""
    value = builder.value(node, 0)
    mode = get_attribute(node, "mode", "linear")
    if len(value.order) != 4 or mode not in (*_LINEAR, "nearest"):
        raise builder.refusal(
            node,
            f"samples {len(value.order) - 2} dimensions with mode {mode}, which is not supported",
        )
    order = channels_last(4)
    image = builder.to_order(value, order)
    batch, height, width, channels = image.shape
    rows = builder.reshape(image, (batch * height * width, channels))
    grid = builder.plain(node, 1)
    across, down = (
        _scale_coordinates(
            builder, node, slice_tensor(builder, grid, {3: range(coordinate, coordinate + 1)}), size
        )
        for coordinate, size in ((0, width), (1, height))
    )
    total: Tensor | None = None
    for x, x_share in _find_neighbors(builder, across, mode):
        for y, y_share in _find_neighbors(builder, down, mode):
            pixel = _gather_pixels(builder, node, (rows, x, y), (batch, height, width))
            for share in (x_share, y_share):
                if share is not None:
                    pixel = builder.emit("MUL", [pixel, share], pixel.shape)
            total = pixel if total is None else builder.emit("ADD", [total, pixel], pixel.shape)
    if total is not None:
        builder.bind(node, total, order)


def _emit_with_number(
    builder: TfliteGraphBuilder, op_type: str, tensor: Tensor, number: float
) -> Tensor:
    return builder.emit(op_type, [tensor, builder.float32(number)], tensor.shape)


def _scale_coordinates(
    builder: TfliteGraphBuilder, node: NodeProto, shares: Tensor, size: int
) -> Tensor:
    """Scale coordinates from [-1, 1] to entries of an axis, and apply the padding mode."""
    aligned = bool(get_attribute(node, "align_corners", 0))
    length = size - 1 if aligned else size
    first = 0.0 if aligned else -0.5
    middle = first + length / 2
    coordinates = _emit_with_number(
        builder, "ADD", _emit_with_number(builder, "MUL", shares, length / 2), middle
    )
    padding = get_attribute(node, "padding_mode", "zeros")
    if padding == "reflection" and length:
        distance = builder.emit(
            "ABS", [_emit_with_number(builder, "SUB", coordinates, first)], coordinates.shape
        )
        distance = _emit_with_number(builder, "FLOOR_MOD", distance, 2.0 * length)
        back = builder.emit(
            "ABS", [_emit_with_number(builder, "SUB", distance, length)], coordinates.shape
        )
        coordinates = builder.emit(
            "SUB", [builder.float32(first + length), back], coordinates.shape
        )
    if padding != "zeros":
        coordinates = _clamp_index(builder, coordinates, size)
    return coordinates


def _clamp_index(builder: TfliteGraphBuilder, coordinates: Tensor, size: int) -> Tensor:
    return _emit_with_number(
        builder, "MINIMUM", _emit_with_number(builder, "MAXIMUM", coordinates, 0.0), size - 1
    )


def _find_neighbors(
    builder: TfliteGraphBuilder, coordinates: Tensor, mode: str
) -> list[tuple[Tensor, Tensor | None]]:
    """Return the integer coordinates next to a coordinate, and their interpolation weights."""
    if mode == "nearest":
        return [(builder.emit("ROUND", [coordinates], coordinates.shape), None)]
    before = builder.emit("FLOOR", [coordinates], coordinates.shape)
    share = builder.emit("SUB", [coordinates, before], coordinates.shape)
    rest = builder.emit("SUB", [builder.float32(1.0), share], coordinates.shape)
    return [(before, rest), (_emit_with_number(builder, "ADD", before, 1.0), share)]


def _gather_pixels(
    builder: TfliteGraphBuilder,
    node: NodeProto,
    pixel_rows: tuple[Tensor, Tensor, Tensor],
    sizes: tuple[int, int, int],
) -> Tensor:
    """Gather pixels at integer coordinates; outside, they are zero if zeros are the padding."""
    (rows, x, y), (batch, height, width) = pixel_rows, sizes
    inner_x, inner_y = _clamp_index(builder, x, width), _clamp_index(builder, y, height)
    base = np.arange(batch, dtype=np.int32).reshape(batch, 1, 1) * height * width
    line = builder.cast(_emit_with_number(builder, "MUL", inner_y, width), "int32")
    flat = builder.emit("ADD", [line, builder.cast(inner_x, "int32")], x.shape, dtype="int32")
    flat = builder.reshape(flat, x.shape[:3])
    flat = builder.emit("ADD", [flat, builder.store(base)], flat.shape, dtype="int32")
    shape = (*flat.shape, rows.shape[1])
    pixel = builder.emit("GATHER", [rows, flat], shape, options={"axis": 0, "batch_dims": 0})
    if get_attribute(node, "padding_mode", "zeros") != "zeros":
        return pixel
    for coordinates, inner in ((x, inner_x), (y, inner_y)):
        inside = builder.emit("EQUAL", [coordinates, inner], coordinates.shape, dtype="bool")
        pixel = builder.emit("SELECT_V2", [inside, pixel, builder.float32(0.0)], shape)
    return pixel


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {"GridSample": _grid_sample}
