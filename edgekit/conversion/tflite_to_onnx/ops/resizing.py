"""Conversion rules of image resizing and of moves between space, depth and batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import channels_first
from edgekit.tflite.ir import Op


def resize_bilinear(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert RESIZE_BILINEAR to Resize."""
    _resize(builder, op, {"mode": "linear"})


def resize_nearest(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert RESIZE_NEAREST_NEIGHBOR to Resize.

    Asymmetric coordinates are rounded down, others to the nearest entry (halves up).
    """
    from_corner = not (op.options.get("align_corners") or op.options.get("half_pixel_centers"))
    rounding = "floor" if from_corner else "round_prefer_ceil"
    _resize(builder, op, {"mode": "nearest", "nearest_mode": rounding})


def _resize(builder: OnnxGraphBuilder, op: Op, attributes: dict[str, str]) -> None:
    if op.options.get("align_corners", False):
        places = "align_corners"
    else:
        places = "half_pixel" if op.options.get("half_pixel_centers", False) else "asymmetric"
    order = channels_first(4)
    x = builder.read(builder.tensor(op, 0), order)
    sizes = builder.node("Slice", [builder.node("Shape", [x]), builder.ints(0), builder.ints(2)])
    sizes = builder.node("Concat", [sizes, builder.int64(op, 1)], {"axis": 0})
    attributes = attributes | {"coordinate_transformation_mode": places}
    builder.bind(op, builder.node("Resize", [x, "", "", sizes], attributes), order)


def depth_to_space(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert DEPTH_TO_SPACE to DepthToSpace (mode DCR)."""
    _exchange_blocks(builder, op, "DepthToSpace")


def space_to_depth(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SPACE_TO_DEPTH to SpaceToDepth."""
    _exchange_blocks(builder, op, "SpaceToDepth")


def _exchange_blocks(builder: OnnxGraphBuilder, op: Op, op_type: str) -> None:
    order = channels_first(4)
    x = builder.read(builder.tensor(op, 0), order)
    builder.bind(op, builder.node(op_type, [x], {"blocksize": op.options["block_size"]}), order)


def space_to_batch(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SPACE_TO_BATCH_ND: pad, then make each position inside a block a sample."""
    block, shape = builder.integers(op, 1), builder.require_shape(op, 0)
    pads = np.asarray(builder.integers(op, 2)).reshape(-1, 2)
    name, count, rest = builder.plain(op, 0), len(block), shape[1 + len(block) :]
    zeros = np.zeros((len(rest), 2), np.int64)
    all_pads = np.concatenate([np.zeros((1, 2), np.int64), pads, zeros])
    if all_pads.any():
        name = builder.node("Pad", [name, builder.ints(*all_pads.T.ravel())])
    sizes = [
        (n + before + after) // b
        for n, b, (before, after) in zip(shape[1:], block, pads, strict=False)
    ]
    parts = [n for pair in zip(sizes, block, strict=True) for n in pair]
    name = builder.node("Reshape", [name, builder.ints(-1, *parts, *rest)])
    rank = 1 + 2 * count + len(rest)
    places, cells = range(2, 1 + 2 * count, 2), range(1, 1 + 2 * count, 2)
    perm = [*places, 0, *cells, *range(1 + 2 * count, rank)]
    name = builder.transpose(name, perm)
    builder.bind(op, builder.node("Reshape", [name, builder.ints(-1, *sizes, *rest)]))


def batch_to_space(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert BATCH_TO_SPACE_ND: move samples to positions inside blocks, then crop the borders."""
    block, shape = builder.integers(op, 1), builder.tensor(op, 0).shape
    if min(shape[1:]) < 0:
        raise builder.refusal(op, "has sizes that are known only at run time")
    crops = np.asarray(builder.integers(op, 2)).reshape(-1, 2)
    count, rest = len(block), shape[1 + len(block) :]
    sizes = shape[1 : 1 + count]
    name = builder.node("Reshape", [builder.plain(op, 0), builder.ints(*block, -1, *sizes, *rest)])
    pairs = [axis for i in range(count) for axis in (count + 1 + i, i)]
    name = builder.transpose(
        name, [count, *pairs, *range(2 * count + 1, 2 * count + 1 + len(rest))]
    )
    merged_sizes = [n * b for n, b in zip(sizes, block, strict=True)]
    name = builder.node("Reshape", [name, builder.ints(-1, *merged_sizes, *rest)])
    builder.bind(op, _crop(builder, name, crops, merged_sizes))


def _crop(builder: OnnxGraphBuilder, name: str, crops: np.ndarray, sizes: Sequence[int]) -> str:
    if not crops.any():
        return name
    ends = [n - after for n, (_, after) in zip(sizes, crops, strict=True)]
    axes = range(1, 1 + len(sizes))
    inputs = [builder.ints(*crops[:, 0]), builder.ints(*ends), builder.ints(*axes)]
    return builder.node("Slice", [name, *inputs])


RULES: dict[str, Rule] = {
    "BATCH_TO_SPACE_ND": batch_to_space,
    "DEPTH_TO_SPACE": depth_to_space,
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "SPACE_TO_BATCH_ND": space_to_batch,
    "SPACE_TO_DEPTH": space_to_depth,
}
