"""Outputs of detectors as boxes, scores and classes: YOLO, distance distributions, plain boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Sequence, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.portable_math import exp
from edgekit_agent.postprocess import select_outputs
from edgekit_agent.postprocess.box_selection import get_size, select_boxes, select_by_class

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from edgekit_agent.postprocess import Convert
    from edgekit_agent.runtimes import Arrays
    from edgekit_agent.scoring import Postprocess

    Floats = NDArray[np.float64]

# Exponents of widths and heights, so that a box of a broken model stays finite.
_MOST_EXPONENT = 20.0
# Bins of a distribution in NanoDet-Plus, whose single output holds scores and distributions.
_NANODET_BINS = 8
_BOX_FORMATS = ("xyxy", "yxyx", "cxcywh", "xywh")


def convert_yolox(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Convert the head of YOLOX: center and logarithm of the size relative to each cell.

    The output is [A, 5 + C] or transposed, with A cells of all strides, in the order of the
    strides: x, y, log width, log height, objectness, and the scores of the classes.
    """
    corners, strides = _list_cells(settings)
    table = _read_table(_get_single(outputs, settings), settings, len(corners))
    _check_columns(table, 6, settings)
    centers = (table[:, :2] + corners) * strides[:, None]
    sizes = exp(np.clip(table[:, 2:4], -_MOST_EXPONENT, _MOST_EXPONENT)) * strides[:, None]
    boxes = _convert_format(np.concatenate([centers, sizes], axis=1), "cxcywh")
    return select_by_class(boxes, table[:, 5:] * table[:, 4:5], targets, settings)


def convert_yolov5(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Convert decoded rows [A, 5 + C]: center, size, objectness, scores of the classes."""
    table = _read_table(_get_single(outputs, settings), settings)
    _check_columns(table, 6, settings)
    boxes = _scale_boxes(_convert_format(table[:, :4], "cxcywh"), settings)
    return select_by_class(boxes, table[:, 5:] * table[:, 4:5], targets, settings)


def convert_yolov8(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Convert columns [4 + C, A], or transposed: center, size, scores of the classes."""
    table = _read_table(_get_single(outputs, settings), settings)
    _check_columns(table, 5, settings)
    boxes = _scale_boxes(_convert_format(table[:, :4], "cxcywh"), settings)
    return select_by_class(boxes, table[:, 4:], targets, settings)


def convert_distances(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Convert distributions of the distances from a cell to the four sides of its box.

    The distance is the mean of the distribution (generalized focal loss, Li 2020), in strides. The
    outputs are the scores [cells, C] and the distributions [cells, 4 x bins] of each level, or
    both for all levels, or one output [cells, C + 32] as in NanoDet-Plus; with channels first or
    last. Of two outputs with the same cells the first one holds the scores. With one bin the
    output is the distance itself.
    """
    corners, strides = _list_cells(settings)
    scores, distributions = _read_levels(select_outputs(outputs, settings), settings)
    bins = distributions.shape[1] // 4
    if not bins or distributions.shape[1] != 4 * bins:
        raise AgentError(
            "bad_job",
            f"post-processing distances: an output has {distributions.shape[1]} numbers for each "
            "cell, which are not four distributions",
            hint="name the outputs in [postprocess] outputs: scores of each level, then distances",
        )
    distances = _compute_means(distributions.reshape(-1, 4, bins)) * strides[:, None]
    centers = corners * strides[:, None] + 0.5 * (strides[:, None] - 1)
    boxes = np.concatenate([centers - distances[:, :2], centers + distances[:, 2:]], axis=1)
    return select_by_class(boxes, scores, targets, settings)


def convert_boxes(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Convert outputs that are boxes: boxes, scores, and optionally classes and a count.

    Scores are [A, C], or [A] with the classes [A]. A single output holds boxes, score and class in
    six columns. Two outputs are told apart by their shapes, unless both have four columns.
    """
    if settings.box_format not in _BOX_FORMATS:
        raise AgentError(
            "bad_job",
            f"unknown box format {settings.box_format!r}; known: {', '.join(_BOX_FORMATS)}",
        )
    parts = _order_box_parts(select_outputs(outputs, settings), settings)
    table = parts[0].reshape(-1, parts[0].shape[-1]).astype(np.float64)
    boxes = _scale_boxes(_convert_format(table[:, :4], settings.box_format), settings)
    if len(parts) == 1:
        return select_boxes(boxes, table[:, 4], table[:, 5].astype(np.int64), targets, settings)
    scores = parts[1].astype(np.float64)
    if len(parts) == 2:
        return select_by_class(boxes, scores.reshape(len(boxes), -1), targets, settings)
    count = len(boxes)
    if len(parts) > 3:
        count = int(min(max(float(parts[3].reshape(-1)[0]), 0.0), float(count)))
    classes = parts[2].reshape(-1)[:count].astype(np.int64)
    return select_boxes(boxes[:count], scores.reshape(-1)[:count], classes, targets, settings)


def _get_single(outputs: Arrays, settings: Postprocess) -> NDArray[Any]:
    named = select_outputs(outputs, settings)
    if len(named) != 1:
        raise AgentError(
            "bad_job",
            f"post-processing {settings.kind} reads one output, but there are {len(named)}: "
            f"{', '.join(named)}",
            hint='name it: [postprocess] outputs = ["NAME"]',
        )
    return next(iter(named.values()))


def _read_table(array: NDArray[Any], settings: Postprocess, rows: int = 0) -> Floats:
    """Return an output as rows of boxes, whether these are its rows or its columns.

    Args:
        array: the output; axes of size 1 are left out.
        settings: for messages.
        rows: number of boxes, if known; else they are the longer axis.

    Raises:
        AgentError: ``bad_job``; it has not two axes, or another number of boxes.
    """
    shape = tuple(side for side in array.shape if side != 1) if array.ndim > 2 else array.shape
    if len(shape) == 2:
        table = array.reshape(shape).astype(np.float64)
        if (rows and table.shape[0] != rows) or (not rows and table.shape[0] < table.shape[1]):
            table = table.T
        if not rows or table.shape[0] == rows:
            return np.ascontiguousarray(table)
    wanted = f"{rows} rows, one for each cell of {settings.size}" if rows else "two axes"
    raise AgentError(
        "bad_job",
        f"post-processing {settings.kind}: the output has shape {list(array.shape)}, "
        f"but needs {wanted}",
        hint="check kind, size and strides of [postprocess]",
    )


def _check_columns(table: Floats, least: int, settings: Postprocess) -> None:
    if table.shape[1] < least:
        raise AgentError(
            "bad_job",
            f"post-processing {settings.kind}: {table.shape[1]} numbers for each box, "
            f"but at least {least} are needed",
        )


def _list_cells(settings: Postprocess) -> Tuple[Floats, Floats]:
    """Return column and row [A, 2] of every cell of all levels, and their strides [A]."""
    corners: List[Floats] = []
    strides: List[Floats] = []
    for stride, (rows, columns) in zip(settings.strides, _list_grids(settings)):
        y, x = np.indices((rows, columns))
        corners.append(np.stack([x.reshape(-1), y.reshape(-1)], axis=1).astype(np.float64))
        strides.append(np.full(rows * columns, stride, np.float64))
    return np.concatenate(corners), np.concatenate(strides)


def _list_grids(settings: Postprocess) -> List[Tuple[int, int]]:
    height, width = get_size(settings)
    if not settings.strides or min(settings.strides) < 1:
        raise AgentError(
            "bad_job",
            f"post-processing {settings.kind} needs positive strides, not {list(settings.strides)}",
        )
    return [(-(-height // stride), -(-width // stride)) for stride in settings.strides]


def _read_levels(outputs: Arrays, settings: Postprocess) -> Tuple[Floats, Floats]:
    """Return scores and distributions of the cells of all levels."""
    grids = _list_grids(settings)
    arrays = list(outputs.values())
    if len(arrays) <= 2 and (len(arrays) < 2 or len(grids) > 1):
        cells = sum(rows * columns for rows, columns in grids)
        tables = _read_cells(arrays, (1, cells))
        bins = 4 * _NANODET_BINS
        if len(tables) == 1 and tables[0].shape[1] > bins:
            return tables[0][:, :-bins], tables[0][:, -bins:]
        if len(tables) != 2:
            raise _make_cells_error(len(tables), f"{cells} cells", settings)
        return tables[0], tables[1]
    scores: List[Floats] = []
    distributions: List[Floats] = []
    for grid in grids:
        tables = _read_cells(arrays, grid)
        if len(tables) != 2:
            raise _make_cells_error(len(tables), f"{grid[0]} x {grid[1]} cells", settings)
        scores.append(tables[0])
        distributions.append(tables[1])
    if len({table.shape[1] for table in scores}) > 1:
        raise _make_cells_error(0, "the same number of classes", settings)
    if len({table.shape[1] for table in distributions}) > 1:
        raise _make_cells_error(0, "the same number of distances", settings)
    return np.concatenate(scores), np.concatenate(distributions)


def _make_cells_error(found: int, wanted: str, settings: Postprocess) -> AgentError:
    return AgentError(
        "bad_job",
        f"post-processing {settings.kind} needs two outputs, scores and distances, with {wanted}; "
        f"there are {found}",
        hint="check size and strides of [postprocess], and name the outputs",
    )


def _read_cells(arrays: Sequence[NDArray[Any]], grid: Tuple[int, int]) -> List[Floats]:
    """Return the arrays that have the cells of a grid, as rows of cells."""
    cells = grid[0] * grid[1]
    tables: List[Floats] = []
    for array in arrays:
        shape = tuple(side for side in array.shape if side != 1)
        if shape[1:] in (grid, (cells,)):
            table = array.reshape(shape[0], cells).T
        elif shape[:1] == (cells,) or shape[:2] == grid:
            table = array.reshape(cells, -1)
        else:
            continue
        tables.append(np.ascontiguousarray(table, np.float64))
    return tables


def _compute_means(logits: Floats) -> Floats:
    """Return the mean bin of the softmax over the last axis; a single bin is the mean itself."""
    bins = logits.shape[-1]
    if bins == 1:
        return logits[..., 0]
    weights = exp(logits - logits.max(axis=-1, keepdims=True))
    total = np.zeros(logits.shape[:-1])
    weighted = np.zeros(logits.shape[:-1])
    for place in range(bins):  # one after the other: the same rounding everywhere
        total += weights[..., place]
        weighted += weights[..., place] * place
    means: Floats = weighted / total
    return means


def _order_box_parts(outputs: Arrays, settings: Postprocess) -> List[NDArray[Any]]:
    """Return boxes, scores, and optionally classes and count.

    Raises:
        AgentError: ``bad_job``; they cannot be told apart, or their lengths differ.
    """
    parts = list(outputs.values())
    unnamed = not settings.outputs
    if len(parts) == 2 and parts[0].shape[-1:] != (4,):
        parts.reverse()
    alike = len(parts) <= 4 and parts[0].shape[-1:] == (6 if len(parts) == 1 else 4,)
    if len(parts) == 2:
        alike = alike and parts[1].size % max(parts[0].size // 4, 1) == 0
        alike = alike and not (unnamed and parts[1].shape[-1:] == (4,))
    elif len(parts) > 2:
        alike = alike and parts[1].size == parts[2].size == parts[0].size // 4
        alike = alike and parts[-1].size > 0
    if not alike or (len(parts) > 2 and unnamed):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise AgentError(
            "bad_job",
            f"post-processing boxes: the outputs {shapes} are not boxes [A, 4], scores [A, C] "
            "or [A], and optionally classes [A] and a count",
            hint='name them in this order: [postprocess] outputs = ["BOXES", "SCORES", "CLASSES"]',
        )
    return parts


def _convert_format(boxes: Floats, kind: str) -> Floats:
    if kind == "xyxy":
        return boxes
    if kind == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    low = boxes[:, :2] - boxes[:, 2:] / 2 if kind == "cxcywh" else boxes[:, :2]
    high = boxes[:, :2] + boxes[:, 2:] / 2 if kind == "cxcywh" else boxes[:, :2] + boxes[:, 2:]
    return np.concatenate([low, high], axis=1)


def _scale_boxes(boxes: Floats, settings: Postprocess) -> Floats:
    """Convert shares of the input's width and height to pixels."""
    if settings.box_unit != "share":
        return boxes
    height, width = get_size(settings)
    return boxes * np.array([width, height, width, height], np.float64)


KINDS: Dict[str, Convert] = {
    "boxes": convert_boxes,
    "distances": convert_distances,
    "yolov5": convert_yolov5,
    "yolov8": convert_yolov8,
    "yolox": convert_yolox,
}
