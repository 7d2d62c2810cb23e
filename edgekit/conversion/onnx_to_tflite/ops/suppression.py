"""Conversion rule of NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.joining import concatenate
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.ops.slicing import slice_tensor
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Tensor

_ONE, _TWO = np.float32(1.0), np.float32(2.0)


def _non_max_suppression(low: Lowering, node: NodeProto) -> None:
    """Convert NonMaxSuppression to rows (batch, class, box); their number depends on the data."""
    boxes, scores = low.plain(node, 0), low.plain(node, 1)
    most = low.integers(node, 2)[0] if low.has(node, 2) else 0
    batches, classes, count = scores.shape
    most = min(most, count)
    if not most:
        raise low.refusal(node, "selects no box: its max_output_boxes_per_class is 0")
    if get_attribute(node, "center_point_box", 0):
        boxes = _to_corners(low, boxes)
    rows: list[Tensor] = []
    valid: list[Tensor] = []
    for batch in range(batches):
        own = low.reshape(slice_tensor(low, boxes, {0: range(batch, batch + 1)}), (count, 4))
        for label in range(classes):
            taken = {0: range(batch, batch + 1), 1: range(label, label + 1)}
            score = low.reshape(slice_tensor(low, scores, taken), (count,))
            chosen, is_valid = _select_boxes(low, node, own, score, most)
            front = low.store(np.tile(np.asarray([[batch, label]], np.int32), (most, 1)))
            rows.append(concatenate(low, [front, low.reshape(chosen, (most, 1))], 1))
            valid.append(is_valid)
    every = low.cast(concatenate(low, rows, 0), "int64")
    places = low.emit("WHERE", [concatenate(low, valid, 0)], (-1, 1), dtype="int64")
    places = low.emit("RESHAPE", [places, low.int32([-1])], (-1,), dtype="int64")
    options = {"axis": 0, "batch_dims": 0}
    low.bind(node, emit_move(low, "GATHER", [every, places], (-1, 3), options=options))


def _to_corners(low: Lowering, boxes: Tensor) -> Tensor:
    """Convert boxes from center and size to corners, y first."""
    middle, size = (slice_tensor(low, boxes, {2: range(at, at + 2)}) for at in (0, 2))
    half = low.emit("MUL", [size, low.float32(0.5)], size.shape)
    ends = [low.emit(kind, [middle, half], size.shape) for kind in ("SUB", "ADD")]
    turned = [
        emit_move(low, "GATHER", [end, low.int32([1, 0])], size.shape, options={"axis": 2})
        for end in ends
    ]
    return concatenate(low, turned, 2)


def _select_boxes(
    low: Lowering, node: NodeProto, boxes: Tensor, scores: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Select boxes; return their indices padded to ``most``, and a mask of those that are valid."""
    overlap = _overlap_threshold(low, node)
    least = float(np.finfo(np.float32).min)
    floor = low.reshape(low.plain(node, 4), ()) if low.has(node, 4) else low.float32(least)
    places = Tensor(name=f"{boxes.name}/chosen", dtype="int32", shape=(most,))
    number = Tensor(name=f"{boxes.name}/number", dtype="int32", shape=())
    inputs = [boxes, scores, low.int32(most), overlap, floor]
    low.emit_many("NON_MAX_SUPPRESSION_V4", inputs, [places, number])
    ranks = low.store(np.arange(most, dtype=np.int32))
    return places, low.emit("LESS", [ranks, number], (most,), dtype="bool")


def _overlap_threshold(low: Lowering, node: NodeProto) -> Tensor:
    """Return the overlap from which on TFLite drops a box.

    It is slightly above ONNX's threshold, because ONNX drops only boxes above that.
    """
    known = low.constant(node, 3)
    if known is None and low.has(node, 3):
        given = low.reshape(low.plain(node, 3), ())
        above = low.emit("MUL", [given, low.float32(float(np.nextafter(_ONE, _TWO)))], ())
        return low.emit("MAXIMUM", [above, low.float32(1e-30)], ())
    most = np.float32(0.0 if known is None else known.ravel()[0])
    return low.float32(float(np.nextafter(most, _TWO)))


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "NonMaxSuppression": _non_max_suppression
}
