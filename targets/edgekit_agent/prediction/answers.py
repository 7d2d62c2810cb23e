"""Answers of a model to one sample, as JSON values: classes, boxes, masks, texts, decisions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.portable_math import sigmoid, softmax
from edgekit_agent.postprocess import select_outputs
from edgekit_agent.postprocess.letterbox import clip_boxes
from edgekit_agent.postprocess.texts import find_chosen_steps, move_text_classes_last

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.model_settings import ModelSettings
    from edgekit_agent.preprocess.images import Pixels
    from edgekit_agent.runtimes import Arrays
    from edgekit_agent.scoring import Answer

    Floats = NDArray[np.float64]
    Json = Dict[str, Any]

_BEST = 5
_MOST_VALUES = 1 << 22
_MOST_POSITIONS = 1 << 26
# Digits after the point of times in seconds.
_DIGITS = 6


def build_letterbox(pixels: Pixels, *, keeps_aspect: bool) -> Dict[str, NDArray[np.float64]]:
    """Return the target ``letterbox`` for post-processing: the image itself, or the input.

    Args:
        pixels: the image.
        keeps_aspect: whether it was letterboxed; boxes are then restored by post-processing.
    """
    if keeps_aspect:
        numbers = [pixels.scale, pixels.left, pixels.top, pixels.width, pixels.height]
    else:
        height, width = pixels.values.shape[:2]
        numbers = [1.0, 0.0, 0.0, float(width), float(height)]
    return {"letterbox": np.array(numbers, np.float64)}


def restore_sides(boxes: Floats, pixels: Pixels) -> Floats:
    """Convert boxes in pixels of an input that was stretched or cropped to those of the image."""
    restored = np.array(boxes, np.float64)
    restored[:, 0::2] = (restored[:, 0::2] - pixels.left) / pixels.scale_x
    restored[:, 1::2] = (restored[:, 1::2] - pixels.top) / pixels.scale_y
    return clip_boxes(restored, pixels.width, pixels.height)


def describe_classes(scores: NDArray[Any], settings: ModelSettings) -> Json:
    """Return the best class and the five best ones; a single score is that of class 1 of two."""
    answer = settings.answer
    if scores.size == 1:
        share = read_shares(scores, answer)[0]
        number = int(share > answer.threshold)
        shares = np.array([1.0 - share, share])
        order = [number, 1 - number]
    else:
        shares = read_shares(scores, answer)
        order = np.argsort(-_to_floats(scores), kind="stable")[:_BEST].tolist()
    classes = [describe_class(settings, number, float(shares[number])) for number in order]
    return {
        "kind": "class",
        "result": classes[0]["label"],
        "confidence": classes[0]["confidence"],
        "classes": classes,
    }


def describe_labels(scores: NDArray[Any], settings: ModelSettings) -> Json:
    """Return all classes whose score exceeds the threshold, the best one first."""
    values = _to_floats(scores)
    shares = np.asarray(sigmoid(values) if settings.answer.logits else values)
    places = np.flatnonzero(shares > settings.answer.threshold)
    order = places[np.argsort(-shares[places], kind="stable")].tolist()
    found = [describe_class(settings, number, float(shares[number])) for number in order]
    return {
        "kind": "labels",
        "result": found,
        "confidence": found[0]["confidence"] if found else None,
    }


def describe_boxes(found: Arrays, settings: ModelSettings, pixels: Optional[Pixels]) -> Json:
    """Return boxes in pixels of the original image, the best one first.

    Args:
        found: boxes, scores and classes of the post-processing.
        settings: settings of the model.
        pixels: the image, if boxes are still in pixels of an input stretched or cropped from it.
    """
    boxes = np.asarray(found["boxes"], np.float64).reshape(-1, 4)
    if pixels is not None:
        boxes = restore_sides(boxes, pixels)
    result = [
        {**describe_class(settings, int(number), float(score)), "box": box}
        for box, score, number in zip(boxes.tolist(), found["scores"], found["classes"])
    ]
    return {
        "kind": "boxes",
        "result": result,
        "confidence": result[0]["confidence"] if result else None,
    }


def find_region(pixels: Optional[Pixels]) -> Optional[List[float]]:
    """Return the corners of the model's input in pixels of the image: left, top, right, bottom.

    They are outside of the image where the input has a border, inside where the image was cropped.
    ``None``: the input is the whole image, or the sample is no image.
    """
    if pixels is None:
        return None
    height, width = pixels.values.shape[:2]
    left, right = ((x - pixels.left) / pixels.scale_x for x in (0, width))
    top, bottom = ((y - pixels.top) / pixels.scale_y for y in (0, height))
    region = [left, top, right, bottom]
    return None if region == [0, 0, pixels.width, pixels.height] else region


def describe_mask(
    values: NDArray[Any],
    settings: ModelSettings,
    *,
    is_classes: bool,
    pixels: Optional[Pixels] = None,
) -> Json:
    """Return the class of each position, in runs of equal classes row by row.

    Args:
        values: an output of one sample.
        settings: settings of the model.
        is_classes: whether it holds classes, not scores.
        pixels: the image, if the sample is one.
    """
    classes = values if is_classes else choose_positions(values, settings.answer)
    mask = classes.reshape([size for size in classes.shape if size != 1] or [1])
    mask = mask.reshape(-1, mask.shape[-1])
    if mask.size > _MOST_POSITIONS:
        raise AgentError("model_failed", f"a mask of {mask.size} positions is too large")
    flat = mask.reshape(-1).astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    counts = np.diff(np.concatenate([starts, [flat.size]]))
    runs = np.stack([flat[starts], counts], axis=1).reshape(-1).tolist()
    numbers, sizes = np.unique(flat, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    listed = [
        {
            "label": settings.get_label(int(numbers[place])),
            "index": int(numbers[place]),
            "share": float(sizes[place]) / flat.size,
        }
        for place in order.tolist()
    ]
    size = {"width": mask.shape[1], "height": mask.shape[0]}
    region = find_region(pixels)
    further = {} if region is None else {"region": region}
    result = {**size, "classes": listed, "runs": runs, **further}
    return {"kind": "mask", "result": result, "confidence": None}


def choose_positions(values: NDArray[Any], answer: Answer) -> NDArray[np.int64]:
    """Return the class of each position of an output: scores of classes, of one, or classes."""
    if answer.class_axis is not None and answer.class_axis < values.ndim:
        if values.shape[answer.class_axis] > 1:
            return np.asarray(values.argmax(axis=answer.class_axis), np.int64)
        values = np.squeeze(values, answer.class_axis)
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    shares = sigmoid(values) if answer.logits else values
    return np.asarray(shares > answer.threshold, np.int64)


def describe_text(outputs: Arrays, found: Arrays, settings: ModelSettings) -> Json:
    """Return a recognized text, with the mean confidence of its characters.

    Args:
        outputs: outputs of the model.
        found: the same after post-processing.
        settings: settings of the model.
    """
    answer, postprocess = settings.answer, settings.postprocess
    name = "text" if "text" in found else answer.output or next(iter(found))
    points = [int(p) for p in np.asarray(found[name]).reshape(-1).tolist() if p != answer.ignore]
    if any(not 0 <= point <= 0x10FFFF or 0xD800 <= point <= 0xDFFF for point in points):
        raise AgentError("model_failed", f"the output {name} is not a text")
    confidence: Optional[float] = None
    if postprocess is not None and postprocess.kind == "ctc":
        scores = next(iter(select_outputs(outputs, postprocess).values()))
        steps = move_text_classes_last(scores, postprocess)
        chosen = find_chosen_steps(steps.argmax(axis=-1), postprocess.blank)
        if chosen.any():
            shares = softmax(steps[chosen]) if answer.logits else _to_floats(steps[chosen])
            confidence = float(np.clip(shares.max(axis=-1), 0.0, 1.0).mean())
    return {
        "kind": "text",
        "result": "".join(map(chr, points)).strip(),
        "confidence": confidence,
    }


def describe_decisions(
    frames: NDArray[Any], settings: ModelSettings, *, start_s: float, step_s: float
) -> Json:
    """Return the class of each span of time; neighbors of one class are joined.

    Args:
        frames: scores [frames, classes], or [frames, 1] of class 1 of two.
        settings: settings of the model.
        start_s: time of the first frame.
        step_s: duration of a frame.
    """
    answer = settings.answer
    values = np.asarray(frames, np.float64)
    if values.shape[1] == 1:
        second = np.asarray(sigmoid(values) if answer.logits else values)
        classes = (second[:, 0] > answer.threshold).astype(np.int64)
        shares = np.concatenate([1.0 - second, second], axis=1)
    else:
        classes = np.asarray(values.argmax(axis=1), np.int64)
        shares = softmax(values) if answer.logits else values
    chosen = shares[np.arange(len(values)), classes] if len(values) else np.zeros(0)
    starts = np.flatnonzero(np.concatenate([[True], classes[1:] != classes[:-1]])[: len(classes)])
    ends = [*starts[1:].tolist(), len(classes)]
    result = [
        {
            "from_s": round(start_s + first * step_s, _DIGITS),
            "to_s": round(start_s + last * step_s, _DIGITS),
            "label": settings.get_label(int(classes[first])),
            "index": int(classes[first]),
            "confidence": float(chosen[first:last].mean()),
        }
        for first, last in zip(starts.tolist(), ends)
    ]
    mean = float(chosen.mean()) if chosen.size else None
    return {"kind": "decisions", "result": result, "confidence": mean}


def split_frames(values: NDArray[Any], answer: Answer) -> NDArray[Any]:
    """Return an output of one sample as [frames, classes]; [frames, 1] without a class axis."""
    if answer.class_axis is None or answer.class_axis >= values.ndim:
        return values.reshape(-1, 1)
    moved = np.moveaxis(values, answer.class_axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def describe_values(outputs: Arrays, left_out: Sequence[str]) -> Json:
    """Return outputs as nested lists, without those that are fed back as states."""
    kept = {name: value for name, value in outputs.items() if name not in left_out}
    count = sum(value.size for value in kept.values())
    if count > _MOST_VALUES:
        raise AgentError(
            "model_failed",
            f"the outputs have {count:,} numbers, more than an answer holds ({_MOST_VALUES:,})",
            hint="name a metric or a post-processing that reduces them, and build again",
        )
    result = {name: _to_list(value) for name, value in kept.items()}
    return {"kind": "values", "result": result, "confidence": None}


def describe_class(settings: ModelSettings, number: int, confidence: float) -> Json:
    """Return a class by its name and its number, with its confidence."""
    return {"label": settings.get_label(number), "index": number, "confidence": confidence}


def read_shares(scores: NDArray[Any], answer: Answer) -> Floats:
    """Return the probabilities of the classes, or of class 1 for a single score."""
    values = _to_floats(scores)
    if not answer.logits:
        return values
    return np.asarray(sigmoid(values) if values.size == 1 else softmax(values), np.float64)


def _to_floats(values: NDArray[Any]) -> Floats:
    return np.asarray(values, np.float64).reshape(values.shape if values.ndim > 1 else -1)


def _to_list(value: NDArray[Any]) -> Any:  # noqa: ANN401 - nested lists
    """Return an array as nested lists; infinite values, which JSON lacks, as null."""
    listed: List[Any] = np.asarray(value).tolist()
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        return _replace_infinite(listed)
    return listed


def _replace_infinite(listed: Any) -> Any:  # noqa: ANN401 - nested lists
    if isinstance(listed, list):
        return [_replace_infinite(each) for each in listed]
    return listed if math.isfinite(listed) else None
