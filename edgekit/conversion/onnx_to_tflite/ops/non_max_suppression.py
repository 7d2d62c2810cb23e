"""Conversion rule of NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.joining import concatenate
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.ops.slicing import slice_tensor
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor

_ONE, _TWO = np.float32(1.0), np.float32(2.0)


def _non_max_suppression(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert NonMaxSuppression to rows (batch, class, box); their number depends on the data."""
    boxes, scores = builder.plain(node, 0), builder.plain(node, 1)
    most = builder.integers(node, 2)[0] if builder.has(node, 2) else 0
    batches, classes, count = scores.shape
    most = min(most, count)
    if not most:
        raise builder.refusal(node, "selects no box: its max_output_boxes_per_class is 0")
    if get_attribute(node, "center_point_box", 0):
        boxes = _to_corners(builder, boxes)
    rows: list[Tensor] = []
    valid: list[Tensor] = []
    for batch in range(batches):
        batch_boxes = builder.reshape(
            slice_tensor(builder, boxes, {0: range(batch, batch + 1)}), (count, 4)
        )
        for label in range(classes):
            ranges = {0: range(batch, batch + 1), 1: range(label, label + 1)}
            score = builder.reshape(slice_tensor(builder, scores, ranges), (count,))
            chosen, is_valid = _select_boxes(builder, node, batch_boxes, score, most)
            front = builder.store(np.tile(np.asarray([[batch, label]], np.int32), (most, 1)))
            rows.append(concatenate(builder, [front, builder.reshape(chosen, (most, 1))], 1))
            valid.append(is_valid)
    every = builder.cast(concatenate(builder, rows, 0), "int64")
    row_indices = builder.emit("WHERE", [concatenate(builder, valid, 0)], (-1, 1), dtype="int64")
    row_indices = builder.emit("RESHAPE", [row_indices, builder.int32([-1])], (-1,), dtype="int64")
    options = {"axis": 0, "batch_dims": 0}
    builder.bind(node, emit_move(builder, "GATHER", [every, row_indices], (-1, 3), options=options))


def _to_corners(builder: TfliteGraphBuilder, boxes: Tensor) -> Tensor:
    """Convert boxes from center and size to corners, y first."""
    middle, size = (slice_tensor(builder, boxes, {2: range(start, start + 2)}) for start in (0, 2))
    half = builder.emit("MUL", [size, builder.float32(0.5)], size.shape)
    ends = [builder.emit(op_type, [middle, half], size.shape) for op_type in ("SUB", "ADD")]
    turned = [
        emit_move(builder, "GATHER", [end, builder.int32([1, 0])], size.shape, options={"axis": 2})
        for end in ends
    ]
    return concatenate(builder, turned, 2)


def _select_boxes(
    builder: TfliteGraphBuilder, node: NodeProto, boxes: Tensor, scores: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Select boxes; return their indices padded to ``most``, and a mask of those that are valid."""
    overlap = _overlap_threshold(builder, node)
    least = float(np.finfo(np.float32).min)
    floor = (
        builder.reshape(builder.plain(node, 4), ())
        if builder.has(node, 4)
        else builder.float32(least)
    )
    chosen = Tensor(name=f"{boxes.name}/chosen", dtype="int32", shape=(most,))
    number = Tensor(name=f"{boxes.name}/number", dtype="int32", shape=())
    inputs = [boxes, scores, builder.int32(most), overlap, floor]
    builder.emit_many("NON_MAX_SUPPRESSION_V4", inputs, [chosen, number])
    ranks = builder.store(np.arange(most, dtype=np.int32))
    return chosen, builder.emit("LESS", [ranks, number], (most,), dtype="bool")


def _overlap_threshold(builder: TfliteGraphBuilder, node: NodeProto) -> Tensor:
    """Return the overlap from which on TFLite drops a box.

    It is slightly above ONNX's threshold, because ONNX drops only boxes above that.
    """
    constant_threshold = builder.constant(node, 3)
    if constant_threshold is None and builder.has(node, 3):
        threshold = builder.reshape(builder.plain(node, 3), ())
        above = builder.emit(
            "MUL", [threshold, builder.float32(float(np.nextafter(_ONE, _TWO)))], ()
        )
        return builder.emit("MAXIMUM", [above, builder.float32(1e-30)], ())
    most = np.float32(0.0 if constant_threshold is None else constant_threshold.ravel()[0])
    return builder.float32(float(np.nextafter(most, _TWO)))


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "NonMaxSuppression": _non_max_suppression
}
