"""Kinds of detector outputs that fit the shapes of a model's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from edgekit.config.project import PostprocessTable
from edgekit.pipeline.proposals.task_facts import OutputFacts

_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
# Boxes of each cell in YOLO v5.
_ANCHORS = 3
_BOX = 4
_BOX_COLUMNS = 6
_FORMATS: tuple[Literal["xyxy", "cxcywh", "yxyx", "xywh"], ...] = ("xyxy", "cxcywh", "yxyx", "xywh")
# Larger numbers are pixels, not shares of the image.
_LARGEST_SHARE = 2.0


def list_detector_heads(
    outputs: Sequence[OutputFacts], size: tuple[int, int] | None
) -> tuple[PostprocessTable, ...]:
    """Return the kinds of post-processing that fit the outputs; the usual ones come first.

    Args:
        outputs: Facts of all outputs of the model.
        size: Height and width of its input; ``None`` = unknown.
    """
    return tuple(_iter_heads(outputs, size))


def count_cells(size: tuple[int, int], strides: Sequence[int]) -> int:
    """Count the cells of the grids of all strides."""
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def _iter_heads(
    outputs: Sequence[OutputFacts], size: tuple[int, int] | None
) -> Iterator[PostprocessTable]:
    if len(outputs) == 1:
        yield from _iter_single_heads(outputs[0], size)
        return
    yield from _iter_level_heads(outputs, size)
    yield from _iter_box_heads(outputs)


def _iter_single_heads(
    output: OutputFacts, size: tuple[int, int] | None
) -> Iterator[PostprocessTable]:
    """Yield kinds of one output [A, K] or [K, A]."""
    shape = output.sizes
    if len(shape) != 2:
        return
    first, last = shape
    if last == _BOX_COLUMNS:
        yield from _iter_formats((), output.high)
    unit = _choose_unit(output.high)
    for strides in _STRIDES:
        cells = count_cells(size, strides) if size else 0
        if cells and first == cells:
            yield PostprocessTable(kind="yolox", strides=strides)
            yield PostprocessTable(kind="yolov5", box_unit=unit)
            yield PostprocessTable(kind="distances", strides=strides)
            yield PostprocessTable(kind="yolov8", box_unit=unit)
        elif cells and last == cells:
            yield PostprocessTable(kind="yolov8", box_unit=unit)
            yield PostprocessTable(kind="yolox", strides=strides)
        elif cells and _ANCHORS * cells in shape:
            yield PostprocessTable(kind="yolov5", box_unit=unit)
        else:
            continue
        return
    if not size and last != _BOX_COLUMNS:
        yield PostprocessTable(kind="yolov8", box_unit=unit)
        yield PostprocessTable(kind="yolov5", box_unit=unit)


def _iter_level_heads(
    outputs: Sequence[OutputFacts], size: tuple[int, int] | None
) -> Iterator[PostprocessTable]:
    """Yield distances of two outputs for each level, or for all levels."""
    if size is None:
        return
    for strides in _STRIDES:
        grids = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
        levels = [rows * columns for rows, columns in grids]
        if sorted(_count_positions(each, grids) for each in outputs) == sorted([*levels, *levels]):
            yield PostprocessTable(kind="distances", strides=strides)
        if len(outputs) == 2 and all(sum(levels) in each.sizes for each in outputs):
            yield PostprocessTable(kind="distances", strides=strides)


def _count_positions(output: OutputFacts, grids: Sequence[tuple[int, int]]) -> int:
    """Return the number of cells of an output of one level, as one axis or as two."""
    pairs = list(pairwise(output.sizes))
    fitting = (r * c for r, c in grids if (r, c) in pairs or r * c in output.sizes)
    return next(fitting, 0)


def _iter_box_heads(outputs: Sequence[OutputFacts]) -> Iterator[PostprocessTable]:
    """Yield outputs that are boxes, with scores, and optionally classes and a count."""
    boxes = [each for each in outputs if each.shape[-1:] == (_BOX,)]
    if len(boxes) != 1:
        return
    rest = [each for each in outputs if each is not boxes[0]]
    if len(outputs) == 2:
        pair = (boxes[0].name, rest[0].name)
        yield from _iter_formats(pair, boxes[0].high)
        yield from _iter_formats(pair, boxes[0].high, background=0)
        return
    rows = [each for each in rest if each.sizes]
    counts = [each.name for each in rest if not each.sizes]
    if len(rows) != 2:
        return
    scores, classes = sorted(rows, key=_looks_like_classes)
    names = (boxes[0].name, scores.name, classes.name, *counts[:1])
    yield from _iter_formats(names, boxes[0].high)


def _looks_like_classes(output: OutputFacts) -> bool:
    name = output.name.lower()
    return not output.is_in_unit_range or "class" in name or "label" in name


def _iter_formats(
    names: tuple[str, ...], high: float, *, background: int = -1
) -> Iterator[PostprocessTable]:
    for box_format in _FORMATS:
        yield PostprocessTable(
            kind="boxes",
            outputs=names,
            box_format=box_format,
            box_unit=_choose_unit(high),
            background=background,
        )


def _choose_unit(high: float) -> Literal["pixels", "share"]:
    return "share" if high <= _LARGEST_SHARE else "pixels"
