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
from edgekit.conversion.onnx_to_tflite.ops.layout_preserving_reshape import reshape_value
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
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


def _resize(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Resize and Upsample to TFLite's image operators, or axis by axis."""
    value = builder.value(node, 0)
    axes = _read_axes(builder, node, value.shape)
    mode = get_attribute(node, "mode", "nearest")
    if mode == "nearest":
        result = _resize_nearest(builder, node, value, axes)
    elif mode in ("linear", "cubic"):
        result = _interpolate(builder, node, value, axes, mode)
    else:
        raise builder.refusal(node, f"has the unknown mode {mode}")
    builder.bind(node, result.tensor, result.order)


def _read_axes(builder: TfliteGraphBuilder, node: NodeProto, shape: Shape) -> Axes:
    """Read the parameters of each axis that is resized."""
    after = builder.shape_of(node.output[0])
    simple = builder.opset < 11
    chosen = [a % len(shape) for a in get_attribute(node, "axes") or range(len(shape))]
    scales = _read_scales(builder, node, simple)
    resized: Axes = {}
    for position, axis in enumerate(chosen):
        scale = scales[position] if scales else after[axis] / shape[axis]
        resized[axis] = Resizing(
            before=shape[axis],
            after=after[axis],
            scale=scale,
            transformation="asymmetric"
            if simple
            else get_attribute(node, "coordinate_transformation_mode", "half_pixel"),
            region=_read_region(builder, node, position, len(chosen)),
            cubic_a=get_attribute(node, "cubic_coeff_a", -0.75),
            exclude_outside=bool(get_attribute(node, "exclude_outside", 0)),
            antialias=bool(get_attribute(node, "antialias", 0)),
        )
    if not scales and get_attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        resized = _unify_scales(builder, node, resized)
    whole_input = (0.0, 1.0)
    return {
        a: h
        for a, h in resized.items()
        if h.before != h.after or h.scale != 1 or h.region != whole_input
    }


def _read_scales(builder: TfliteGraphBuilder, node: NodeProto, simple: bool) -> list[float]:
    """Read the given scales; none if sizes are given."""
    if get_attribute(node, "scales"):
        return [float(scale) for scale in get_attribute(node, "scales")]
    position = 1 if simple else 2
    scales = builder.constant(node, position)
    if scales is None and builder.has(node, position):
        raise builder.refusal(node, "has scales that are computed at run time")
    return [] if scales is None else [float(scale) for scale in scales.ravel()]


def _unify_scales(builder: TfliteGraphBuilder, node: NodeProto, axes: Axes) -> Axes:
    """Replace all scales by one that keeps the aspect ratio; the given sizes are bounds."""
    sizes = builder.integers(node, 3)
    ratios = [size / resizing.before for size, resizing in zip(sizes, axes.values(), strict=True)]
    policy = get_attribute(node, "keep_aspect_ratio_policy")
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return {axis: replace(resizing, scale=scale) for axis, resizing in axes.items()}


def _read_region(
    builder: TfliteGraphBuilder, node: NodeProto, position: int, count: int
) -> tuple[float, float]:
    if get_attribute(node, "coordinate_transformation_mode") != "tf_crop_and_resize":
        return (0.0, 1.0)
    region = builder.constant(node, 1)
    if region is None:
        raise builder.refusal(node, "has a region (roi) that is computed at run time")
    return float(region[position]), float(region[count + position])


def _image_order(value: Value, axes: Axes) -> Order | None:
    """Return channels-last order if only rows and columns of images change, else ``None``."""
    rank = len(value.order)
    return channels_last(4) if rank == 4 and axes.keys() <= {2, 3} and axes else None


def _resize_image(
    builder: TfliteGraphBuilder, op_type: str, value: Value, axes: Axes, flags: tuple[bool, bool]
) -> Value:
    order = channels_last(4)
    sizes = tuple(axes[a].after if a in axes else value.shape[a] for a in range(4))
    shape = to_storage_shape(sizes, order)
    options = {"align_corners": flags[0], "half_pixel_centers": flags[1]}
    inputs = [builder.to_order(value, order), builder.int32([sizes[2], sizes[3]])]
    return Value(tensor=builder.emit(op_type, inputs, shape, options=options), order=order)


def _resize_nearest(
    builder: TfliteGraphBuilder, node: NodeProto, value: Value, axes: Axes
) -> Value:
    simple = builder.opset < 11
    mode = "floor" if simple else get_attribute(node, "nearest_mode", "round_prefer_floor")
    nearest = {axis: compute_nearest(resizing, mode) for axis, resizing in axes.items()}
    if any(find_outside(resizing).any() for resizing in axes.values()):
        raise builder.refusal(node, "extrapolates with mode nearest, which is not supported")
    if _image_order(value, axes) and value.tensor.dtype == "float32":
        for flags, (transformation, rounding) in _NEAREST.items():
            is_equal = all(
                (
                    compute_nearest(_to_tflite_resizing(resizing, transformation), rounding)
                    == nearest[axis]
                ).all()
                for axis, resizing in axes.items()
            )
            if is_equal:
                return _resize_image(builder, "RESIZE_NEAREST_NEIGHBOR", value, axes, flags)
    for axis, indices in nearest.items():
        value = Value(tensor=gather_constant(builder, value, axis, indices), order=value.order)
    return value


def _to_tflite_resizing(resizing: Resizing, transformation: str) -> Resizing:
    """Return the parameters of an axis for TFLite, whose scale is the exact ratio of the sizes."""
    return Resizing(
        before=resizing.before,
        after=resizing.after,
        scale=resizing.after / resizing.before,
        transformation=transformation,
    )


def _interpolate(
    builder: TfliteGraphBuilder, node: NodeProto, value: Value, axes: Axes, mode: str
) -> Value:
    if value.tensor.dtype != "float32":
        raise builder.refusal(
            node, f"interpolates {value.tensor.dtype} values; only float32 is supported"
        )
    weights = {axis: compute_weights(resizing, mode) for axis, resizing in axes.items()}
    if _image_order(value, axes):
        for flags, transformation in _BILINEAR.items():
            is_equal = all(
                np.allclose(
                    compute_weights(_to_tflite_resizing(resizing, transformation), "linear"),
                    weights[axis],
                    atol=1e-6,
                )
                for axis, resizing in axes.items()
            )
            if is_equal:
                return _resize_image(builder, "RESIZE_BILINEAR", value, axes, flags)
    extrapolated = float(get_attribute(node, "extrapolation_value", 0.0))
    for axis, resizing in sorted(axes.items(), key=lambda each: each[1].scale):
        tensor = _multiply_along(builder, value, axis, weights[axis])
        if extrapolated and find_outside(resizing).any():
            tensor = _add_along(
                builder, tensor, value.axis(axis), find_outside(resizing) * extrapolated
            )
        value = Value(tensor=tensor, order=value.order)
    return value


def _multiply_along(builder: TfliteGraphBuilder, value: Value, axis: int, weights: Array) -> Tensor:
    """Multiply a matrix into a value along an ONNX axis, wherever that is stored."""
    storage_axis = value.axis(axis)
    shape = value.tensor.shape
    before, after = math.prod(shape[:storage_axis]), math.prod(shape[storage_axis + 1 :])
    result_shape = (*shape[:storage_axis], len(weights), *shape[storage_axis + 1 :])
    matrices = builder.reshape(value.tensor, (before, shape[storage_axis], after))
    stored_weights = builder.store(weights[None].astype(np.float32))
    inner = (before, len(weights), after)
    product = builder.emit(
        "BATCH_MATMUL", [stored_weights, matrices], inner, options={"adj_x": False}
    )
    return builder.reshape(product, result_shape)


def _add_along(builder: TfliteGraphBuilder, tensor: Tensor, axis: int, numbers: Array) -> Tensor:
    shape = [1] * len(tensor.shape)
    shape[axis] = len(numbers)
    other = builder.store(numbers.reshape(shape).astype(np.float32))
    return builder.emit("ADD", [tensor, other], tensor.shape)


def _move_blocks(
    builder: TfliteGraphBuilder, node: NodeProto, op_type: str, value: Value, size: int
) -> None:
    order = channels_last(4)
    shape = to_storage_shape(builder.shape_of(node.output[0]), order)
    result = emit_move(
        builder, op_type, [builder.to_order(value, order)], shape, options={"block_size": size}
    )
    builder.bind(node, result, order)


def _depth_to_space(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    size = int(get_attribute(node, "blocksize"))
    batch, depth, rows, columns = value.shape
    inner = depth // size**2
    if get_attribute(node, "mode", "DCR") == "DCR" or inner == 1:
        _move_blocks(builder, node, "DEPTH_TO_SPACE", value, size)
        return
    parts = reshape_value(builder, value, (batch, inner, size, size, rows, columns))
    turned = _permute(builder.unmix(parts), (0, 1, 4, 2, 5, 3))
    result = reshape_value(builder, turned, builder.shape_of(node.output[0]))
    builder.bind(node, result.tensor, result.order, mixed=result.mixed)


def _space_to_depth(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    size = int(get_attribute(node, "blocksize"))
    batch, depth, rows, columns = value.shape
    if get_attribute(node, "mode", "DCR") == "DCR" or depth == 1:
        _move_blocks(builder, node, "SPACE_TO_DEPTH", value, size)
        return
    shape = (batch, depth, rows // size, size, columns // size, size)
    parts = reshape_value(builder, value, shape)
    result = reshape_value(
        builder,
        _permute(builder.unmix(parts), (0, 1, 3, 5, 2, 4)),
        builder.shape_of(node.output[0]),
    )
    builder.bind(node, result.tensor, result.order, mixed=result.mixed)


def _permute(value: Value, perm: Order) -> Value:
    """Permute the ONNX axes of a value without moving data."""
    return Value(tensor=value.tensor, order=tuple(perm.index(axis) for axis in value.order))


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "DepthToSpace": _depth_to_space,
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
    "Upsample": _resize,
}
