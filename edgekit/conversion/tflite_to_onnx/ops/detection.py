"""Conversion rules of box detection: post-processing and non-maximum suppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.ops.reductions import reduce_axes
from edgekit.errors import make_missing_extra_error
from edgekit.tflite.ir import Op


def detection_postprocess(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert TFLite_Detection_PostProcess to box decoding, NonMaxSuppression and TopK.

    Inputs are encoded boxes, class scores and anchors. Outputs are boxes, classes, scores and the
    number of detections; unused rows are zero.

    Source: TensorFlow, ``tensorflow/lite/kernels/detection_postprocess.cc``.

    Raises:
        PassRefused: several classes per detection without ``use_regular_nms``.
    """
    options = _read_options(op)
    is_regular = bool(options.get("use_regular_nms", False))
    if not is_regular and options.get("max_classes_per_detection", 1) != 1:
        raise builder.refusal(
            op, "assigns several classes to one detection, which is not supported"
        )
    count = int(options["max_detections"])
    boxes = _decode_boxes(builder, op, options)
    scores = _read_class_scores(builder, op, int(options["num_classes"]))
    searched = scores if is_regular else reduce_axes(builder, "ReduceMax", scores, [1])
    limits = [
        builder.ints(int(options.get("detections_per_class", 100)) if is_regular else count),
        builder.scalar(options["nms_iou_threshold"]),
        builder.scalar(_previous_float(float(options["nms_score_threshold"]))),
    ]
    # Rows of batch, class and box.
    chosen = builder.node("NonMaxSuppression", [boxes, searched, *limits])
    best, ranks = _find_best(builder, builder.node("GatherND", [searched, chosen]), count)
    chosen = builder.node("Gather", [chosen, ranks])
    box = builder.node("Gather", [chosen, builder.ints(2)], {"axis": 1})
    if is_regular:
        classes = builder.node("Gather", [chosen, builder.ints(1)], {"axis": 1})
    else:
        likeliest = builder.node("ArgMax", [scores], {"axis": 1, "keepdims": 0})
        first = builder.node("Gather", [chosen, builder.ints(0)], {"axis": 1})
        where = builder.node("Concat", [first, box], {"axis": 1})
        classes = builder.node("GatherND", [likeliest, where])
    row = builder.node("Reshape", [box, builder.ints(-1)])
    corners = builder.node("Squeeze", [boxes, builder.ints(0)])
    corners = _pad_rows(builder, builder.node("Gather", [corners, row]), count, 2)
    classes = builder.node("Reshape", [builder.cast(classes, "float32"), builder.ints(-1)])
    result = [corners, _pad_rows(builder, classes, count, 1), _pad_rows(builder, best, count, 1)]
    for output, name in enumerate(result):
        builder.bind(op, builder.node("Unsqueeze", [name, builder.ints(0)]), output=output)
    builder.bind(op, builder.cast(builder.node("Shape", [best]), "float32"), output=3)


def _read_options(op: Op) -> dict[str, Any]:
    try:
        from flatbuffers import flexbuffers
    except ImportError as error:
        raise make_missing_extra_error("flatbuffers", "litert") from error
    result: dict[str, Any] = flexbuffers.Loads(bytes(op.options["custom_options"]))
    return result


def _previous_float(threshold: float) -> float:
    """Return the largest float32 below a threshold.

    TFLite keeps scores equal to the threshold, ONNX only scores above it.
    """
    return float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))


def _decode_boxes(builder: OnnxGraphBuilder, op: Op, options: dict[str, Any]) -> str:
    """Decode boxes given relative to anchors to corners [1, boxes, (top, left, bottom, right)]."""
    scales = [options[f"{name}_scale"] for name in ("y", "x", "h", "w")]
    scaled = builder.node(
        "Div", [builder.plain(op, 0), builder.numbers(np.asarray(scales, np.float32))]
    )
    halves = builder.ints(2, 2)
    offsets, sizes = builder.nodes("Split", [scaled, halves], 2, {"axis": 2})
    centers, extents = builder.nodes("Split", [builder.plain(op, 2), halves], 2, {"axis": 1})
    middle = builder.node("Add", [builder.node("Mul", [offsets, extents]), centers])
    half = builder.node("Mul", [builder.node("Exp", [sizes]), builder.scalar(0.5)])
    half = builder.node("Mul", [half, extents])
    corners = [builder.node(op_type, [middle, half]) for op_type in ("Sub", "Add")]
    return builder.node("Concat", corners, {"axis": 2})


def _read_class_scores(builder: OnnxGraphBuilder, op: Op, classes: int) -> str:
    """Read the scores as [1, classes, boxes], without a leading background class."""
    x = builder.tensor(op, 1)
    name, surplus = builder.plain(op, 1), x.shape[-1] - classes
    if surplus:
        bounds = (builder.ints(n) for n in (surplus, x.shape[-1], 2))
        name = builder.node("Slice", [name, *bounds])
    return builder.transpose(name, [0, 2, 1])


def _find_best(builder: OnnxGraphBuilder, scores: str, count: int) -> tuple[str, str]:
    """Return the ``count`` highest scores, or all if there are fewer, and their indices."""
    most = builder.node("Min", [builder.node("Shape", [scores]), builder.ints(count)])
    values, indices = builder.nodes("TopK", [scores, most], 2, {"axis": 0})
    return values, indices


def _pad_rows(builder: OnnxGraphBuilder, name: str, count: int, rank: int) -> str:
    """Append rows of zeros up to ``count`` rows."""
    rows = builder.node("Slice", [builder.node("Shape", [name]), builder.ints(0), builder.ints(1)])
    missing = builder.node("Sub", [builder.ints(count), rows])
    before, behind = builder.ints(*[0] * rank), [builder.ints(*[0] * (rank - 1))] * (rank > 1)
    return builder.node(
        "Pad", [name, builder.node("Concat", [before, missing, *behind], {"axis": 0})]
    )


def non_max_suppression(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert NON_MAX_SUPPRESSION_V4 and V5 to NonMaxSuppression.

    Outputs are the indices of the selected boxes, for V5 their scores, and their number.

    Raises:
        PassRefused: the maximum number of boxes is only known at run time, or scores decay (soft
            suppression).
    """
    count = builder.integers(op, 2)[0]
    is_soft = op.op_type.endswith("V5")
    fading = builder.array(op, 5) if is_soft else None
    if is_soft and (fading is None or fading.any()):
        raise builder.refusal(op, "reduces scores gradually (soft NMS), which is not supported")
    boxes = builder.node("Unsqueeze", [builder.plain(op, 0), builder.ints(0)])
    scores = builder.node("Unsqueeze", [builder.plain(op, 1), builder.ints(0, 1)])
    limits = [builder.ints(count), builder.plain(op, 3), builder.plain(op, 4)]
    chosen = builder.node("NonMaxSuppression", [boxes, scores, *limits])
    box_indices = builder.node("Gather", [chosen, builder.ints(2)], {"axis": 1})
    box_indices = builder.node("Reshape", [box_indices, builder.ints(-1)])
    number = builder.node("Squeeze", [builder.node("Shape", [box_indices]), builder.ints(0)])
    indices = builder.cast(_pad_rows(builder, box_indices, count, 1), "int32")
    result = [indices, builder.cast(number, "int32")]
    if is_soft:
        best_scores = builder.node("Gather", [builder.plain(op, 1), box_indices])
        result.insert(1, _pad_rows(builder, best_scores, count, 1))
    for output, name in enumerate(result):
        builder.bind(op, name, output=output)


RULES: dict[str, Rule] = {
    "CUSTOM:TFLite_Detection_PostProcess": detection_postprocess,
    "NON_MAX_SUPPRESSION_V4": non_max_suppression,
    "NON_MAX_SUPPRESSION_V5": non_max_suppression,
}
