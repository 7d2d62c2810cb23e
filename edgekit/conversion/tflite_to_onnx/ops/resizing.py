"""Conversion rules of image resizing and of moves between space, depth and batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import channels_first
from edgekit.tflite.ir import Op


def resize_bilinear(lifting: Lifting, op: Op) -> None:
    """Convert RESIZE_BILINEAR to Resize."""
    _resize(lifting, op, {"mode": "linear"})


def resize_nearest(lifting: Lifting, op: Op) -> None:
    """Convert RESIZE_NEAREST_NEIGHBOR to Resize.

    Asymmetric coordinates are rounded down, others to the nearest entry (halves up).
    """
    from_corner = not (op.options.get("align_corners") or op.options.get("half_pixel_centers"))
    rounding = "floor" if from_corner else "round_prefer_ceil"
    _resize(lifting, op, {"mode": "nearest", "nearest_mode": rounding})


def _resize(lifting: Lifting, op: Op, attributes: dict[str, str]) -> None:
    if op.options.get("align_corners", False):
        places = "align_corners"
    else:
        places = "half_pixel" if op.options.get("half_pixel_centers", False) else "asymmetric"
    order = channels_first(4)
    x = lifting.read(lifting.tensor(op, 0), order)
    sizes = lifting.node("Slice", [lifting.node("Shape", [x]), lifting.ints(0), lifting.ints(2)])
    sizes = lifting.node("Concat", [sizes, lifting.int64(op, 1)], {"axis": 0})
    attributes = attributes | {"coordinate_transformation_mode": places}
    lifting.bind(op, lifting.node("Resize", [x, "", "", sizes], attributes), order)


def depth_to_space(lifting: Lifting, op: Op) -> None:
    """Convert DEPTH_TO_SPACE to DepthToSpace (mode DCR)."""
    _exchange_blocks(lifting, op, "DepthToSpace")


def space_to_depth(lifting: Lifting, op: Op) -> None:
    """Convert SPACE_TO_DEPTH to SpaceToDepth."""
    _exchange_blocks(lifting, op, "SpaceToDepth")


def _exchange_blocks(lifting: Lifting, op: Op, kind: str) -> None:
    order = channels_first(4)
    x = lifting.read(lifting.tensor(op, 0), order)
    lifting.bind(op, lifting.node(kind, [x], {"blocksize": op.options["block_size"]}), order)


def space_to_batch(lifting: Lifting, op: Op) -> None:
    """Convert SPACE_TO_BATCH_ND: pad, then make each position inside a block a sample."""
    block, shape = lifting.integers(op, 1), lifting.require_shape(op, 0)
    pads = np.asarray(lifting.integers(op, 2)).reshape(-1, 2)
    name, count, rest = lifting.plain(op, 0), len(block), shape[1 + len(block) :]
    zeros = np.zeros((len(rest), 2), np.int64)
    wide = np.concatenate([np.zeros((1, 2), np.int64), pads, zeros])
    if wide.any():
        name = lifting.node("Pad", [name, lifting.ints(*wide.T.ravel())])
    sizes = [
        (n + before + after) // b
        for n, b, (before, after) in zip(shape[1:], block, pads, strict=False)
    ]
    parts = [n for pair in zip(sizes, block, strict=True) for n in pair]
    name = lifting.node("Reshape", [name, lifting.ints(-1, *parts, *rest)])
    rank = 1 + 2 * count + len(rest)
    places, cells = range(2, 1 + 2 * count, 2), range(1, 1 + 2 * count, 2)
    perm = [*places, 0, *cells, *range(1 + 2 * count, rank)]
    name = lifting.transpose(name, perm)
    lifting.bind(op, lifting.node("Reshape", [name, lifting.ints(-1, *sizes, *rest)]))


def batch_to_space(lifting: Lifting, op: Op) -> None:
    """Convert BATCH_TO_SPACE_ND: move samples to positions inside blocks, then crop the borders."""
    block, shape = lifting.integers(op, 1), lifting.tensor(op, 0).shape
    if min(shape[1:]) < 0:
        raise lifting.refusal(op, "has sizes that are known only at run time")
    crops = np.asarray(lifting.integers(op, 2)).reshape(-1, 2)
    count, rest = len(block), shape[1 + len(block) :]
    sizes = shape[1 : 1 + count]
    name = lifting.node("Reshape", [lifting.plain(op, 0), lifting.ints(*block, -1, *sizes, *rest)])
    pairs = [axis for i in range(count) for axis in (count + 1 + i, i)]
    name = lifting.transpose(
        name, [count, *pairs, *range(2 * count + 1, 2 * count + 1 + len(rest))]
    )
    whole = [n * b for n, b in zip(sizes, block, strict=True)]
    name = lifting.node("Reshape", [name, lifting.ints(-1, *whole, *rest)])
    lifting.bind(op, _crop(lifting, name, crops, whole))


def _crop(lifting: Lifting, name: str, crops: np.ndarray, sizes: Sequence[int]) -> str:
    if not crops.any():
        return name
    ends = [n - after for n, (_, after) in zip(sizes, crops, strict=True)]
    axes = range(1, 1 + len(sizes))
    inputs = [lifting.ints(*crops[:, 0]), lifting.ints(*ends), lifting.ints(*axes)]
    return lifting.node("Slice", [name, *inputs])


LIFTS: dict[str, Rule] = {
    "BATCH_TO_SPACE_ND": batch_to_space,
    "DEPTH_TO_SPACE": depth_to_space,
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "SPACE_TO_BATCH_ND": space_to_batch,
    "SPACE_TO_DEPTH": space_to_depth,
}
