"""Conversion rules of Resize, Upsample, DepthToSpace and SpaceToDepth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Order, Value, channels_last, to_storage_shape
from edgekit.conversion.onnx_to_tflite.ops.indexing import gather_constant
from edgekit.conversion.onnx_to_tflite.ops.interpolation import (
    Resizing,
    compute_nearest,
    compute_weights,
    find_outside,
)
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.ops.reshaping import reshape_value
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Array, Shape, Tensor

# ONNX's names for the exact meaning of TFLite's flags (align_corners, half_pixel_centers).
_BILINEAR = {
    (False, True): "half_pixel",
    (False, False): "asymmetric",
    (True, False): "align_corners",
}
_NEAREST = {
    (False, False): ("asymmetric", "floor"),
    (False, True): ("tf_half_pixel_for_nn", "floor"),
    (True, False): ("align_corners", "round_prefer_ceil"),
}
Axes = dict[int, Resizing]


def _resize(low: Lowering, node: NodeProto) -> None:
    """Convert Resize and Upsample to TFLite's image operators, or axis by axis."""
    value = low.value(node, 0)
    axes = _read_axes(low, node, value.shape)
    mode = get_attribute(node, "mode", "nearest")
    if mode == "nearest":
        made = _resize_nearest(low, node, value, axes)
    elif mode in ("linear", "cubic"):
        made = _interpolate(low, node, value, axes, mode)
    else:
        raise low.refusal(node, f"has the unknown mode {mode}")
    low.bind(node, made.tensor, made.order)


def _read_axes(low: Lowering, node: NodeProto, shape: Shape) -> Axes:
    """Read the parameters of each axis that is resized."""
    after = low.shape_of(node.output[0])
    simple = low.opset < 11
    chosen = [a % len(shape) for a in get_attribute(node, "axes") or range(len(shape))]
    scales = _read_scales(low, node, simple)
    found: Axes = {}
    for place, axis in enumerate(chosen):
        scale = scales[place] if scales else after[axis] / shape[axis]
        found[axis] = Resizing(
            before=shape[axis],
            after=after[axis],
            scale=scale,
            transformation="asymmetric"
            if simple
            else get_attribute(node, "coordinate_transformation_mode", "half_pixel"),
            region=_read_region(low, node, place, len(chosen)),
            cubic_a=get_attribute(node, "cubic_coeff_a", -0.75),
            exclude_outside=bool(get_attribute(node, "exclude_outside", 0)),
            antialias=bool(get_attribute(node, "antialias", 0)),
        )
    if not scales and get_attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        found = _unify_scales(low, node, found)
    still = (0.0, 1.0)
    return {
        a: h for a, h in found.items() if h.before != h.after or h.scale != 1 or h.region != still
    }


def _read_scales(low: Lowering, node: NodeProto, simple: bool) -> list[float]:
    """Read the given scales; none if sizes are given."""
    if get_attribute(node, "scales"):
        return [float(scale) for scale in get_attribute(node, "scales")]
    place = 1 if simple else 2
    known = low.constant(node, place)
    if known is None and low.has(node, place):
        raise low.refusal(node, "has scales that are computed at run time")
    return [] if known is None else [float(scale) for scale in known.ravel()]


def _unify_scales(low: Lowering, node: NodeProto, axes: Axes) -> Axes:
    """Replace all scales by one that keeps the aspect ratio; the given sizes are bounds."""
    sizes = low.integers(node, 3)
    ratios = [size / how.before for size, how in zip(sizes, axes.values(), strict=True)]
    policy = get_attribute(node, "keep_aspect_ratio_policy")
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return {axis: replace(how, scale=scale) for axis, how in axes.items()}


def _read_region(low: Lowering, node: NodeProto, place: int, count: int) -> tuple[float, float]:
    if get_attribute(node, "coordinate_transformation_mode") != "tf_crop_and_resize":
        return (0.0, 1.0)
    region = low.constant(node, 1)
    if region is None:
        raise low.refusal(node, "has a region (roi) that is computed at run time")
    return float(region[place]), float(region[count + place])


def _image_order(value: Value, axes: Axes) -> Order | None:
    """Return channels-last order if only rows and columns of images change, else ``None``."""
    rank = len(value.order)
    return channels_last(4) if rank == 4 and axes.keys() <= {2, 3} and axes else None


def _resize_image(
    low: Lowering, kind: str, value: Value, axes: Axes, flags: tuple[bool, bool]
) -> Value:
    order = channels_last(4)
    sizes = tuple(axes[a].after if a in axes else value.shape[a] for a in range(4))
    shape = to_storage_shape(sizes, order)
    options = {"align_corners": flags[0], "half_pixel_centers": flags[1]}
    inputs = [low.to_order(value, order), low.int32([sizes[2], sizes[3]])]
    return Value(tensor=low.emit(kind, inputs, shape, options=options), order=order)


def _resize_nearest(low: Lowering, node: NodeProto, value: Value, axes: Axes) -> Value:
    simple = low.opset < 11
    mode = "floor" if simple else get_attribute(node, "nearest_mode", "round_prefer_floor")
    places = {axis: compute_nearest(how, mode) for axis, how in axes.items()}
    if any(find_outside(how).any() for how in axes.values()):
        raise low.refusal(node, "extrapolates with mode nearest, which is not supported")
    if _image_order(value, axes) and value.tensor.dtype == "float32":
        for flags, (transformation, rounding) in _NEAREST.items():
            same = all(
                (
                    compute_nearest(_to_tflite_resizing(how, transformation), rounding)
                    == places[axis]
                ).all()
                for axis, how in axes.items()
            )
            if same:
                return _resize_image(low, "RESIZE_NEAREST_NEIGHBOR", value, axes, flags)
    for axis, indices in places.items():
        value = Value(tensor=gather_constant(low, value, axis, indices), order=value.order)
    return value


def _to_tflite_resizing(how: Resizing, transformation: str) -> Resizing:
    """Return the parameters of an axis for TFLite, whose scale is the exact ratio of the sizes."""
    return Resizing(
        before=how.before,
        after=how.after,
        scale=how.after / how.before,
        transformation=transformation,
    )


def _interpolate(low: Lowering, node: NodeProto, value: Value, axes: Axes, mode: str) -> Value:
    if value.tensor.dtype != "float32":
        raise low.refusal(
            node, f"interpolates {value.tensor.dtype} values; only float32 is supported"
        )
    weights = {axis: compute_weights(how, mode) for axis, how in axes.items()}
    if _image_order(value, axes):
        for flags, transformation in _BILINEAR.items():
            same = all(
                np.allclose(
                    compute_weights(_to_tflite_resizing(how, transformation), "linear"),
                    weights[axis],
                    atol=1e-6,
                )
                for axis, how in axes.items()
            )
            if same:
                return _resize_image(low, "RESIZE_BILINEAR", value, axes, flags)
    extrapolated = float(get_attribute(node, "extrapolation_value", 0.0))
    for axis, how in sorted(axes.items(), key=lambda each: each[1].scale):
        tensor = _multiply_along(low, value, axis, weights[axis])
        if extrapolated and find_outside(how).any():
            tensor = _add_along(low, tensor, value.axis(axis), find_outside(how) * extrapolated)
        value = Value(tensor=tensor, order=value.order)
    return value


def _multiply_along(low: Lowering, value: Value, axis: int, weights: Array) -> Tensor:
    """Multiply a matrix into a value along an ONNX axis, wherever that is stored."""
    place = value.axis(axis)
    shape = value.tensor.shape
    before, after = math.prod(shape[:place]), math.prod(shape[place + 1 :])
    made = (*shape[:place], len(weights), *shape[place + 1 :])
    whole = low.reshape(value.tensor, (before, shape[place], after))
    left = low.store(weights[None].astype(np.float32))
    inner = (before, len(weights), after)
    product = low.emit("BATCH_MATMUL", [left, whole], inner, options={"adj_x": False})
    return low.reshape(product, made)


def _add_along(low: Lowering, tensor: Tensor, place: int, numbers: Array) -> Tensor:
    shape = [1] * len(tensor.shape)
    shape[place] = len(numbers)
    other = low.store(numbers.reshape(shape).astype(np.float32))
    return low.emit("ADD", [tensor, other], tensor.shape)


def _move_blocks(low: Lowering, node: NodeProto, kind: str, value: Value, size: int) -> None:
    order = channels_last(4)
    shape = to_storage_shape(low.shape_of(node.output[0]), order)
    made = emit_move(low, kind, [low.to_order(value, order)], shape, options={"block_size": size})
    low.bind(node, made, order)


def _depth_to_space(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    size = int(get_attribute(node, "blocksize"))
    batch, depth, rows, columns = value.shape
    inner = depth // size**2
    if get_attribute(node, "mode", "DCR") == "DCR" or inner == 1:
        _move_blocks(low, node, "DEPTH_TO_SPACE", value, size)
        return
    parts = reshape_value(low, value, (batch, inner, size, size, rows, columns))
    turned = _permute(low.unmix(parts), (0, 1, 4, 2, 5, 3))
    made = reshape_value(low, turned, low.shape_of(node.output[0]))
    low.bind(node, made.tensor, made.order, mixed=made.mixed)


def _space_to_depth(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    size = int(get_attribute(node, "blocksize"))
    batch, depth, rows, columns = value.shape
    if get_attribute(node, "mode", "DCR") == "DCR" or depth == 1:
        _move_blocks(low, node, "SPACE_TO_DEPTH", value, size)
        return
    shape = (batch, depth, rows // size, size, columns // size, size)
    parts = reshape_value(low, value, shape)
    made = reshape_value(
        low, _permute(low.unmix(parts), (0, 1, 3, 5, 2, 4)), low.shape_of(node.output[0])
    )
    low.bind(node, made.tensor, made.order, mixed=made.mixed)


def _permute(value: Value, perm: Order) -> Value:
    """Permute the ONNX axes of a value without moving data."""
    return Value(tensor=value.tensor, order=tuple(perm.index(axis) for axis in value.order))


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "DepthToSpace": _depth_to_space,
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
    "Upsample": _resize,
}
