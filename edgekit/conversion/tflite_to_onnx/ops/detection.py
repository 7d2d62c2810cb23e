"""Conversion rules of box detection: post-processing and non-maximum suppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.ops.reductions import reduce_axes
from edgekit.errors import make_missing_extra_error
from edgekit.tflite.ir import Op


def detection_postprocess(lifting: Lifting, op: Op) -> None:
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
        raise lifting.refusal(
            op, "assigns several classes to one detection, which is not supported"
        )
    count = int(options["max_detections"])
    boxes = _decode_boxes(lifting, op, options)
    scores = _read_class_scores(lifting, op, int(options["num_classes"]))
    searched = scores if is_regular else reduce_axes(lifting, "ReduceMax", scores, [1])
    limits = [
        lifting.ints(int(options.get("detections_per_class", 100)) if is_regular else count),
        lifting.scalar(options["nms_iou_threshold"]),
        lifting.scalar(_previous_float(float(options["nms_score_threshold"]))),
    ]
    # Rows of batch, class and box.
    chosen = lifting.node("NonMaxSuppression", [boxes, searched, *limits])
    best, ranks = _find_best(lifting, lifting.node("GatherND", [searched, chosen]), count)
    chosen = lifting.node("Gather", [chosen, ranks])
    box = lifting.node("Gather", [chosen, lifting.ints(2)], {"axis": 1})
    if is_regular:
        classes = lifting.node("Gather", [chosen, lifting.ints(1)], {"axis": 1})
    else:
        likeliest = lifting.node("ArgMax", [scores], {"axis": 1, "keepdims": 0})
        first = lifting.node("Gather", [chosen, lifting.ints(0)], {"axis": 1})
        where = lifting.node("Concat", [first, box], {"axis": 1})
        classes = lifting.node("GatherND", [likeliest, where])
    row = lifting.node("Reshape", [box, lifting.ints(-1)])
    corners = lifting.node("Squeeze", [boxes, lifting.ints(0)])
    corners = _pad_rows(lifting, lifting.node("Gather", [corners, row]), count, 2)
    classes = lifting.node("Reshape", [lifting.cast(classes, "float32"), lifting.ints(-1)])
    made = [corners, _pad_rows(lifting, classes, count, 1), _pad_rows(lifting, best, count, 1)]
    for output, name in enumerate(made):
        lifting.bind(op, lifting.node("Unsqueeze", [name, lifting.ints(0)]), output=output)
    lifting.bind(op, lifting.cast(lifting.node("Shape", [best]), "float32"), output=3)


def _read_options(op: Op) -> dict[str, Any]:
    try:
        from flatbuffers import flexbuffers
    except ImportError as error:
        raise make_missing_extra_error("flatbuffers", "litert") from error
    made: dict[str, Any] = flexbuffers.Loads(bytes(op.options["custom_options"]))
    return made


def _previous_float(threshold: float) -> float:
    """Return the largest float32 below a threshold.

    TFLite keeps scores equal to the threshold, ONNX only scores above it.
    """
    return float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))


def _decode_boxes(lifting: Lifting, op: Op, options: dict[str, Any]) -> str:
    """Decode boxes given relative to anchors to corners [1, boxes, (top, left, bottom, right)]."""
    scales = [options[f"{name}_scale"] for name in ("y", "x", "h", "w")]
    scaled = lifting.node(
        "Div", [lifting.plain(op, 0), lifting.numbers(np.asarray(scales, np.float32))]
    )
    halves = lifting.ints(2, 2)
    offsets, sizes = lifting.nodes("Split", [scaled, halves], 2, {"axis": 2})
    centers, extents = lifting.nodes("Split", [lifting.plain(op, 2), halves], 2, {"axis": 1})
    middle = lifting.node("Add", [lifting.node("Mul", [offsets, extents]), centers])
    half = lifting.node("Mul", [lifting.node("Exp", [sizes]), lifting.scalar(0.5)])
    half = lifting.node("Mul", [half, extents])
    corners = [lifting.node(kind, [middle, half]) for kind in ("Sub", "Add")]
    return lifting.node("Concat", corners, {"axis": 2})


def _read_class_scores(lifting: Lifting, op: Op, classes: int) -> str:
    """Read the scores as [1, classes, boxes], without a leading background class."""
    x = lifting.tensor(op, 1)
    name, surplus = lifting.plain(op, 1), x.shape[-1] - classes
    if surplus:
        bounds = (lifting.ints(n) for n in (surplus, x.shape[-1], 2))
        name = lifting.node("Slice", [name, *bounds])
    return lifting.transpose(name, [0, 2, 1])


def _find_best(lifting: Lifting, scores: str, count: int) -> tuple[str, str]:
    """Return the ``count`` highest scores, or all if there are fewer, and their indices."""
    most = lifting.node("Min", [lifting.node("Shape", [scores]), lifting.ints(count)])
    values, places = lifting.nodes("TopK", [scores, most], 2, {"axis": 0})
    return values, places


def _pad_rows(lifting: Lifting, name: str, count: int, rank: int) -> str:
    """Append rows of zeros up to ``count`` rows."""
    rows = lifting.node("Slice", [lifting.node("Shape", [name]), lifting.ints(0), lifting.ints(1)])
    missing = lifting.node("Sub", [lifting.ints(count), rows])
    before, behind = lifting.ints(*[0] * rank), [lifting.ints(*[0] * (rank - 1))] * (rank > 1)
    return lifting.node(
        "Pad", [name, lifting.node("Concat", [before, missing, *behind], {"axis": 0})]
    )


def non_max_suppression(lifting: Lifting, op: Op) -> None:
    """Convert NON_MAX_SUPPRESSION_V4 and V5 to NonMaxSuppression.

    Outputs are the indices of the selected boxes, for V5 their scores, and their number.

    Raises:
        PassRefused: the maximum number of boxes is only known at run time, or scores decay (soft
            suppression).
    """
    count = lifting.integers(op, 2)[0]
    is_soft = op.kind.endswith("V5")
    fading = lifting.array(op, 5) if is_soft else None
    if is_soft and (fading is None or fading.any()):
        raise lifting.refusal(op, "reduces scores gradually (soft NMS), which is not supported")
    boxes = lifting.node("Unsqueeze", [lifting.plain(op, 0), lifting.ints(0)])
    scores = lifting.node("Unsqueeze", [lifting.plain(op, 1), lifting.ints(0, 1)])
    limits = [lifting.ints(count), lifting.plain(op, 3), lifting.plain(op, 4)]
    chosen = lifting.node("NonMaxSuppression", [boxes, scores, *limits])
    places = lifting.node("Gather", [chosen, lifting.ints(2)], {"axis": 1})
    places = lifting.node("Reshape", [places, lifting.ints(-1)])
    number = lifting.node("Squeeze", [lifting.node("Shape", [places]), lifting.ints(0)])
    indices = lifting.cast(_pad_rows(lifting, places, count, 1), "int32")
    made = [indices, lifting.cast(number, "int32")]
    if is_soft:
        found = lifting.node("Gather", [lifting.plain(op, 1), places])
        made.insert(1, _pad_rows(lifting, found, count, 1))
    for output, name in enumerate(made):
        lifting.bind(op, name, output=output)


LIFTS: dict[str, Rule] = {
    "CUSTOM:TFLite_Detection_PostProcess": detection_postprocess,
    "NON_MAX_SUPPRESSION_V4": non_max_suppression,
    "NON_MAX_SUPPRESSION_V5": non_max_suppression,
}
