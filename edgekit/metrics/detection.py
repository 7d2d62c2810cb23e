"""Metrics of detection: COCO's average precision, aggregated for many sets of weights at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.answers import BOXES
from edgekit.metrics.image_precision import build_image_value
from edgekit.metrics.metric import Aggregate, Floats, Metric, Table, TargetReader
from edgekit.metrics.row_checks import (
    COUNT,
    COUNT_FROM_1,
    LABEL,
    MOST_LABEL,
    Range,
    check_dense_size,
)
from edgekit_agent.metrics.detection import (
    DETECTION_NUMBERS,
    MOST_DETECTIONS,
    THRESHOLDS,
    compute_overlaps,
    parse_targets,
)
from edgekit_agent.scoring import MetricOptions

Integers = NDArray[np.int64]

# The recalls at which COCO reads the precision: 0, .01, ..., 1.
_RECALLS = np.linspace(0.0, 1.0, 101)
# Detections of several classes are computed together, up to this number.
_MOST_TOGETHER = 1 << 14


@dataclass(frozen=True, kw_only=True, eq=False)
class _ClassBlock:
    """Detections of some classes, sorted by class, then by falling score.

    A curve is the precision-recall curve of one class at one threshold. ``hits`` are the true
    positives of all curves, one curve after the other.

    Attributes:
        images: Image of each detection.
        hit_places: Place of the detection of each hit.
        hit_classes: Class of each hit, as a column of the target counts.
        class_starts: Place of the first detection of the class of each hit.
        starts: Place of the first hit of each curve.
        ignored_places: Places of ignored detections, one curve after the other.
        ignored_before: Ignored detections of the curve that precede each hit: they are the
            elements from the first to the second number.
    """

    images: Integers
    hit_places: Integers
    hit_classes: Integers
    class_starts: Integers
    starts: Integers
    ignored_places: Integers
    ignored_before: tuple[Integers, Integers]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Boxes:
    """All rows: detections sorted by class and falling score, and target counts [n, classes]."""

    images: Integers
    classes: Integers
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    counts: Floats
    labels: Integers


def prepare_precision(thresholds: int) -> Callable[[Table, MetricOptions], Aggregate]:
    """Return the ``prepare`` of the mean of AP over classes and the first thresholds."""

    def prepare(table: Table, options: MetricOptions) -> Aggregate:
        del options
        boxes = _unpack_rows(table, thresholds)
        blocks = list(_iter_blocks(boxes))

        def compute(weights: Floats) -> Floats:
            counts = weights @ boxes.counts
            total = np.zeros(len(weights))
            for block in blocks:
                total += _compute_areas(block, weights, counts).sum(axis=1)
            present = (counts > 0).sum(axis=1)
            return np.where(present, total / np.maximum(present, 1) / thresholds, np.nan)

        return compute

    return prepare


def compute_class_precisions(thresholds: int) -> Callable[[Table, MetricOptions], dict[int, float]]:
    """Return the ``compute_classes``: AP of each class that has targets."""

    def compute(table: Table, options: MetricOptions) -> dict[int, float]:
        del options
        boxes = _unpack_rows(table, thresholds)
        weights = np.ones((1, table.n))
        counts = weights @ boxes.counts
        areas = np.zeros(boxes.labels.size)
        for block in _iter_blocks(boxes):
            curves = np.add.reduceat(_compute_areas(block, weights, counts)[0], block.starts)
            np.add.at(areas, block.hit_classes[block.starts], curves)
        return {
            int(label): float(area / thresholds)
            for label, area, count in zip(boxes.labels, areas, counts[0], strict=True)
            if count
        }

    return compute


def _unpack_rows(table: Table, thresholds: int) -> _Boxes:
    images: list[Integers] = []
    targets: list[Floats] = []
    found: list[Floats] = []
    holders: list[Integers] = []
    for number, row in enumerate(table.rows):
        end = 1 + 2 * int(row[0])
        pairs = row[1:end].reshape(-1, 2)
        detections = row[end:].reshape(-1, DETECTION_NUMBERS)
        targets.append(pairs)
        holders.append(np.full(len(pairs), number))
        found.append(detections)
        images.append(np.full(len(detections), number))
    pairs = np.concatenate(targets)
    labels, columns = np.unique(pairs[:, 0].astype(np.int64), return_inverse=True)
    counts = np.zeros((table.n, labels.size))
    counts[np.concatenate(holders), columns] = pairs[:, 1]
    detections = np.concatenate(found)
    places = np.concatenate(images)
    # Classes without targets do not count.
    known = np.isin(detections[:, 0], labels)
    detections, places = detections[known], places[known]
    order = np.lexsort((-detections[:, 1], detections[:, 0]))
    detections = detections[order]
    bits = 1 << np.arange(thresholds)
    return _Boxes(
        images=places[order],
        classes=np.searchsorted(labels, detections[:, 0].astype(np.int64)),
        hits=(detections[:, 2:3].astype(np.int64) & bits) > 0,
        ignored=(detections[:, 3:4].astype(np.int64) & bits) > 0,
        counts=counts,
        labels=labels,
    )


def _iter_blocks(boxes: _Boxes) -> Iterator[_ClassBlock]:
    """Yield the detections up to the last true positive of each class, some classes at a time."""
    edges = np.searchsorted(boxes.classes, np.arange(boxes.labels.size + 1))
    together: list[tuple[int, int, int]] = []
    for column, (start, end) in enumerate(pairwise(edges)):
        anywhere = np.flatnonzero(boxes.hits[start:end].any(axis=1))
        if not anywhere.size:
            continue
        together.append((column, int(start), int(start + anywhere[-1] + 1)))
        if sum(stop - begin for _, begin, stop in together) > _MOST_TOGETHER:
            yield _build_block(boxes, together)
            together = []
    if together:
        yield _build_block(boxes, together)


def _build_block(boxes: _Boxes, ranges: list[tuple[int, int, int]]) -> _ClassBlock:
    images: list[Integers] = []
    hit_places: list[Integers] = []
    hit_classes: list[Integers] = []
    class_starts: list[Integers] = []
    starts: list[int] = []
    ignored_places: list[Integers] = []
    first_ignored: list[Integers] = []
    last_ignored: list[Integers] = []
    offset = hit_count = ignored_count = 0
    for column, start, end in ranges:
        images.append(boxes.images[start:end])
        for threshold in range(boxes.hits.shape[1]):
            hits = np.flatnonzero(boxes.hits[start:end, threshold])
            if not hits.size:
                continue
            ignored = np.flatnonzero(boxes.ignored[start:end, threshold])
            starts.append(hit_count)
            hit_places.append(hits + offset)
            hit_classes.append(np.full(hits.size, column))
            class_starts.append(np.full(hits.size, offset))
            ignored_places.append(ignored + offset)
            first_ignored.append(np.full(hits.size, ignored_count))
            last_ignored.append(ignored_count + np.searchsorted(ignored, hits))
            hit_count += hits.size
            ignored_count += ignored.size
        offset += end - start
    return _ClassBlock(
        images=np.concatenate(images),
        hit_places=np.concatenate(hit_places),
        hit_classes=np.concatenate(hit_classes),
        class_starts=np.concatenate(class_starts),
        starts=np.array(starts),
        ignored_places=np.concatenate(ignored_places),
        ignored_before=(np.concatenate(first_ignored), np.concatenate(last_ignored)),
    )


def _compute_areas(block: _ClassBlock, weights: Floats, counts: Floats) -> Floats:
    """Compute what each hit adds to the area under its curve, for each set of weights: [b, hits].

    The precision is largest at hits, so that the envelope is needed there alone. A hit adds the
    envelope times the number of recalls that the curve reaches with it.
    """
    detections = _add_up(weights[:, block.images])
    found = detections[:, block.hit_places + 1] - detections[:, block.class_starts]
    if block.ignored_places.size:
        ignored = _add_up(weights[:, block.images[block.ignored_places]])
        first, last = block.ignored_before
        found -= ignored[:, last] - ignored[:, first]
    sizes = np.diff(block.starts, append=block.hit_places.size)
    begins = np.repeat(block.starts, sizes)
    right = _add_up(weights[:, block.images[block.hit_places]])
    right = right[:, 1:] - right[:, begins]
    precision = right / np.where(found > 0, found, 1.0)
    for start, size in zip(block.starts, sizes, strict=True):
        curve = precision[:, start : start + size][:, ::-1]
        np.maximum.accumulate(curve, axis=1, out=curve)
    recall = right / np.where(counts > 0, counts, 1.0)[:, block.hit_classes]
    reached = np.searchsorted(_RECALLS, recall, side="right")
    gained = np.diff(reached, axis=1, prepend=0)
    gained[:, block.starts] = reached[:, block.starts]
    return precision * gained / _RECALLS.size


def _add_up(values: Floats) -> Floats:
    """Return the sums of the first 0, 1, ... columns."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def compute_constant_boxes(thresholds: int) -> Callable[[TargetReader, MetricOptions], float]:
    """Return the ``compute_trivial``: the mAP of one constant box for each class.

    It is the better one of the whole image and the median box of the class, found in every image
    with the same score, so that a curve has a single point.
    """

    def compute(read: TargetReader, options: MetricOptions) -> float:
        samples = list(read())
        rows = [parse_targets(each["y"], n, options.classes) for n, each in enumerate(samples)]
        single = [~row.crowds for row in rows]
        boxes = np.concatenate([row.boxes[kept] for row, kept in zip(rows, single, strict=True)])
        classes = np.concatenate(
            [row.classes[kept] for row, kept in zip(rows, single, strict=True)]
        )
        images = np.repeat(np.arange(len(rows)), [int(kept.sum()) for kept in single])
        if not classes.size:
            return 0.0
        edge = boxes[:, 2:].max(axis=0)
        whole = np.zeros((len(rows), 4))
        for place, each in zip(whole, samples, strict=True):
            place[2:] = each["letterbox"][3:5] if "letterbox" in each else edge
        areas = []
        for label in np.unique(classes):
            mine = classes == label
            median = np.tile(np.median(boxes[mine], axis=0), (len(rows), 1))
            areas.append(
                max(
                    _compute_constant_area(boxes[mine], images[mine], guess, thresholds)
                    for guess in (whole, median)
                )
            )
        return float(np.mean(areas))

    return compute


def _compute_constant_area(
    boxes: Floats, images: Integers, guesses: Floats, thresholds: int
) -> float:
    """Compute AP of one class if each image has one detection, all with the same score."""
    overlaps = np.zeros(len(guesses))
    for box, image in zip(boxes, images, strict=True):
        one = compute_overlaps(guesses[image : image + 1], box[np.newaxis], np.zeros(1, np.bool_))
        overlaps[image] = max(overlaps[image], one[0, 0])
    hits = (overlaps[:, np.newaxis] >= np.array(THRESHOLDS[:thresholds])).sum(axis=0)
    reached = np.searchsorted(_RECALLS, hits / len(boxes), side="right")
    return float((hits / len(guesses) * reached / _RECALLS.size).mean())


_BITS = Range(low=0, high=2 ** len(THRESHOLDS) - 1, is_whole=True)
_LABELS = Range(low=-MOST_LABEL, high=MOST_LABEL, is_whole=True)


def _check_boxes(rows: Sequence[Floats], options: MetricOptions) -> None:
    """Check rows of ``compute_detections``.

    Raises:
        ValueError: A row has another layout, or a number in it is out of range.
    """
    del options
    counts = np.array([row[0] if row.size else -1 for row in rows], np.float64)
    if not COUNT.accepts(counts):
        raise ValueError("a row does not begin with the number of its classes")
    ends = 1 + 2 * counts
    rest = np.array([row.size for row in rows]) - ends
    if (rest < 0).any() or (rest % DETECTION_NUMBERS).any():
        raise ValueError("a row has another number of values than its classes and detections")
    pieces = [np.split(row, [1, int(end)]) for row, end in zip(rows, ends, strict=True)]
    pairs = np.concatenate([np.zeros(0), *(piece[1] for piece in pieces)]).reshape(-1, 2)
    found = np.concatenate([np.zeros(0), *(piece[2] for piece in pieces)])
    found = found.reshape(-1, DETECTION_NUMBERS)
    ranges = (
        *((LABEL, pairs[:, 0]), (COUNT_FROM_1, pairs[:, 1]), (_LABELS, found[:, 0])),
        *((_BITS, found[:, 2]), (_BITS, found[:, 3])),
    )
    if not all(each.accepts(values) for each, values in ranges):
        raise ValueError("a class, its number of targets or a match is out of range")
    check_dense_size(len(rows), np.unique(pairs[:, 0]).size)
    images = np.arange(len(rows))
    _check_matches(
        _number_classes(np.repeat(images, counts.astype(np.int64)), pairs[:, 0]),
        pairs[:, 1],
        _number_classes(np.repeat(images, rest.astype(np.int64) // DETECTION_NUMBERS), found[:, 0]),
        found[:, 2:].astype(np.int64),
    )


def _number_classes(images: Integers, classes: Floats) -> Integers:
    """Return one number for each class of each image."""
    return np.asarray(images * (1 << 33) + classes.astype(np.int64) + (1 << 32), np.int64)


def _check_matches(labels: Integers, targets: Floats, classes: Integers, bits: Integers) -> None:
    """Check that targets and matches of each class of each image fit together.

    Args:
        labels: Class and image of each count of targets.
        targets: The counts.
        classes: Class and image of each detection.
        bits: Thresholds [detections, 2] at which it is a match, and is ignored.

    Raises:
        ValueError: A class occurs twice, has more matches than targets or too many detections, or a
            detection is both a match and ignored.
    """
    order = np.argsort(labels, kind="stable")
    labels, targets = labels[order], targets[order]
    if (np.diff(labels) == 0).any():
        raise ValueError("a class occurs twice in a row")
    if (bits[:, 0] & bits[:, 1]).any():
        raise ValueError("a detection is both a match and ignored")
    order = np.argsort(classes, kind="stable")
    known, starts, counts = np.unique(classes[order], return_index=True, return_counts=True)
    if not counts.size:
        return
    if counts.max() > MOST_DETECTIONS:
        raise ValueError(f"a class has {counts.max()} detections")
    hits = (bits[order, :1] >> np.arange(len(THRESHOLDS))) & 1
    matched = np.add.reduceat(hits, starts, axis=0).max(axis=1)
    places = np.searchsorted(labels, known)
    there = np.isin(known, labels)
    most = np.zeros(known.size)
    most[there] = targets[places[there]]
    if (matched > most).any():
        raise ValueError("a class has more matches than targets")


METRICS = (
    Metric(
        name="map",
        title="mAP 50-95",
        target="rows of x1, y1, x2, y2 in pixels, class and, if there are any, crowd (0 or 1)",
        prepare=prepare_precision(len(THRESHOLDS)),
        compute_trivial=compute_constant_boxes(len(THRESHOLDS)),
        compute_classes=compute_class_precisions(len(THRESHOLDS)),
        sample_value=build_image_value(len(THRESHOLDS)),
        answers=BOXES,
        check_rows=_check_boxes,
    ),
    Metric(
        name="map50",
        title="mAP 50",
        target="rows of x1, y1, x2, y2 in pixels, class and, if there are any, crowd (0 or 1)",
        prepare=prepare_precision(1),
        compute_trivial=compute_constant_boxes(1),
        compute_classes=compute_class_precisions(1),
        sample_value=build_image_value(1),
        answers=BOXES,
        check_rows=_check_boxes,
    ),
)
