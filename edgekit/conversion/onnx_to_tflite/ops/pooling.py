"""Conversion rules of pooling over windows and over all spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import channels_last
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import emit_binary, emit_unary, reduce_axes
from edgekit.conversion.onnx_to_tflite.ops.windows import (
    Window,
    find_padding_mode,
    identity_window,
    pad_image,
    read_windows,
    remove_padding,
)
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Array, Tensor

# Operators without negative outputs: padding these with zeros does not change a maximum.
_NOT_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus", "Sqrt"}
_PASSED_THROUGH = {"QuantizeLinear", "DequantizeLinear", "MaxPool", "AveragePool", "Dropout"}


def max_pool(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert MaxPool with up to three spatial axes."""
    if len(node.output) > 1 and node.output[1]:
        raise builder.refusal(
            node, "outputs the indices of the maxima, which TFLite's pooling does not support"
        )
    value = builder.value(node, 0)
    image = builder.to_order(value, channels_last(len(value.order)))
    windows = read_windows(builder, node, get_attribute(node, "kernel_shape"))
    if find_padding_mode(windows) is None or any(w.dilation > 1 for w in windows):
        image = pad_image(builder, image, windows, fill=_max_pool_filling(builder, node, image))
        windows = remove_padding(windows)
    result = _pool(builder, "MAX_POOL_2D", image, windows)
    builder.bind(node, result, channels_last(len(value.order)))


def _max_pool_filling(builder: TfliteGraphBuilder, node: NodeProto, image: Tensor) -> Tensor | None:
    """Return a fill value that never is the maximum; ``None`` if zero will do."""
    if image.dtype == "float32":
        return None if _is_not_negative(builder, node.input[0]) else builder.float32(-3.4e38)
    fill = builder.store(np.asarray(np.iinfo(image.dtype).min, image.dtype))
    if image.quantization is None:
        return fill
    return Tensor(
        name="least", dtype=fill.dtype, shape=(), data=fill.data, quantization=image.quantization
    )


def _is_not_negative(builder: TfliteGraphBuilder, name: str) -> bool:
    node = builder.index.producer.get(name)
    while node is not None and node.op_type in _PASSED_THROUGH:
        node = builder.index.producer.get(node.input[0])
    if node is None:
        return False
    if node.op_type == "Clip":
        bound = get_attribute(node, "min", builder.constant(node, 1))
        return bound is not None and float(bound) >= 0
    return node.op_type in _NOT_NEGATIVE


def average_pool(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert AveragePool with up to three spatial axes, pads counted in the divisor or not."""
    value = builder.value(node, 0)
    order = channels_last(len(value.order))
    windows = read_windows(builder, node, get_attribute(node, "kernel_shape"))
    counts_padding = bool(get_attribute(node, "count_include_pad", 0))
    image = builder.to_order(value, order)
    dilated = any(w.dilation > 1 for w in windows)
    is_plain = find_padding_mode(windows) == "VALID" or not counts_padding
    if find_padding_mode(windows) is not None and is_plain and not dilated and len(windows) < 3:
        result = _pool(builder, "AVERAGE_POOL_2D", image, windows)
    else:
        result = pad_image(builder, image, windows)
        result = _pool(builder, "AVERAGE_POOL_2D", result, remove_padding(windows))
        result = _rescale_averages(builder, result, windows, counts_padding=counts_padding)
    builder.bind(node, result, order)


def _rescale_averages(
    builder: TfliteGraphBuilder,
    averages: Tensor,
    windows: Sequence[Window],
    *,
    counts_padding: bool,
) -> Tensor:
    """Rescale averages over whole windows to averages over the entries that count."""
    factors = np.ones((1,) * (len(windows) + 2), np.float32)
    for axis, window in enumerate(windows):
        shape = [1] * factors.ndim
        shape[axis + 1] = window.out
        counts = _count_entries(window, counts_padding=counts_padding)
        factors = factors * (window.kernel / counts).astype(np.float32).reshape(shape)
    if np.all(factors == 1):
        return averages
    return emit_binary(builder, "MUL", averages, builder.store(factors))


def _count_entries(window: Window, *, counts_padding: bool) -> Array:
    """Count the entries in the average at each window position, at least one."""
    starts = np.arange(window.out)[:, None] * window.stride - window.before
    read_indices = starts + np.arange(window.kernel) * window.dilation
    first = -window.before if counts_padding else 0
    last = window.size + (window.after if counts_padding else 0)
    counts = np.count_nonzero((read_indices >= first) & (read_indices < last), axis=1)
    return np.asarray(np.maximum(counts, 1))


def lp_pool(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert LpPool: the p-norm of each window, from averages of powers."""
    value = builder.value(node, 0)
    order = channels_last(len(value.order))
    windows = read_windows(builder, node, get_attribute(node, "kernel_shape"))
    power = float(get_attribute(node, "p", 2))
    image = pad_image(
        builder, _raise_to_power(builder, builder.to_order(value, order), power), windows
    )
    result = _pool(builder, "AVERAGE_POOL_2D", image, remove_padding(windows))
    result = emit_binary(builder, "MUL", result, float(np.prod([w.kernel for w in windows])))
    builder.bind(node, _take_root(builder, result, power), order)


def _raise_to_power(builder: TfliteGraphBuilder, tensor: Tensor, power: float) -> Tensor:
    if power == 2:
        return emit_binary(builder, "MUL", tensor, tensor)
    tensor = emit_unary(builder, "ABS", tensor)
    return tensor if power == 1 else emit_binary(builder, "POW", tensor, power)


def _take_root(builder: TfliteGraphBuilder, tensor: Tensor, power: float) -> Tensor:
    if power == 2:
        return emit_unary(builder, "SQRT", tensor)
    return tensor if power == 1 else emit_binary(builder, "POW", tensor, 1 / power)


def _pool(
    builder: TfliteGraphBuilder, op_type: str, image: Tensor, windows: Sequence[Window]
) -> Tensor:
    """Pool an image with channels last, one or two axes at a time.

    Averages of averages and maxima of maxima are those of the whole window.
    """
    for axis, window in enumerate(windows):
        if window.dilation > 1:
            image = _pool_dilated(builder, op_type, image, axis + 1, window)
    windows = [identity_window(w.out) if w.dilation > 1 else w for w in windows]
    if all(w.kernel == w.stride == 1 and w.is_valid for w in windows):
        return image
    batch, channels = image.shape[0], image.shape[-1]
    outs = [w.out for w in windows]
    if len(windows) == 1:
        flat = builder.reshape(image, (batch, 1, windows[0].size, channels))
        result = _pool_2d(builder, op_type, flat, [identity_window(1), windows[0]])
        return builder.reshape(result, (batch, *outs, channels))
    if len(windows) == 2:
        return _pool_2d(builder, op_type, image, windows)
    depth, height, width = windows
    flat = builder.reshape(image, (batch * depth.size, height.size, width.size, channels))
    flat = _pool_2d(builder, op_type, flat, [height, width])
    flat = builder.reshape(flat, (batch, depth.size, height.out * width.out, channels))
    flat = _pool_2d(builder, op_type, flat, [depth, identity_window(height.out * width.out)])
    return builder.reshape(flat, (batch, *outs, channels))


def _pool_2d(
    builder: TfliteGraphBuilder, op_type: str, image: Tensor, windows: Sequence[Window]
) -> Tensor:
    options = {
        "padding": find_padding_mode(windows),
        "filter_height": windows[0].kernel,
        "filter_width": windows[1].kernel,
        "stride_h": windows[0].stride,
        "stride_w": windows[1].stride,
    }
    shape = (image.shape[0], windows[0].out, windows[1].out, image.shape[3])
    result = builder.emit(op_type, [image], shape, dtype=image.dtype, options=options)
    result.quantization = image.quantization
    return result


def _pool_dilated(
    builder: TfliteGraphBuilder, op_type: str, image: Tensor, axis: int, window: Window
) -> Tensor:
    """Pool along one axis by strided slices, one for each entry of the dilated window."""
    shape = tuple(window.out if a == axis else n for a, n in enumerate(image.shape))
    result: Tensor | None = None
    for entry in range(window.kernel):
        begin, end, strides = [0] * len(shape), list(image.shape), [1] * len(shape)
        begin[axis] = entry * window.dilation
        end[axis] = begin[axis] + (window.out - 1) * window.stride + 1
        strides[axis] = window.stride
        inputs = [image, *(builder.int32(numbers) for numbers in (begin, end, strides))]
        part = builder.emit("STRIDED_SLICE", inputs, shape, dtype=image.dtype)
        joining = "MAXIMUM" if op_type == "MAX_POOL_2D" else "ADD"
        result = part if result is None else emit_binary(builder, joining, result, part)
    if result is None:
        raise ValueError("a window of no entries")
    return (
        result
        if op_type == "MAX_POOL_2D"
        else emit_binary(builder, "MUL", result, 1 / window.kernel)
    )


def make_global_pool_rule(op_type: str) -> Callable[[TfliteGraphBuilder, NodeProto], None]:
    """Make the rule of a reduction over all spatial axes.

    Args:
        op_type: TFLite operator type.
    """
    return partial(_convert_global_pool, op_type=op_type)


def _convert_global_pool(builder: TfliteGraphBuilder, node: NodeProto, *, op_type: str) -> None:
    value = builder.value(node, 0)
    axes = [value.axis(axis) for axis in range(2, len(value.order))]
    builder.bind(node, reduce_axes(builder, op_type, value.tensor, axes), value.order)


def global_lp_pool(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert GlobalLpPool: the p-norm over all spatial axes."""
    value = builder.value(node, 0)
    power = float(get_attribute(node, "p", 2))
    axes = [value.axis(axis) for axis in range(2, len(value.order))]
    result = reduce_axes(builder, "SUM", _raise_to_power(builder, value.tensor, power), axes)
    builder.bind(node, _take_root(builder, result, power), value.order)


RULES = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": make_global_pool_rule("MEAN"),
    "GlobalMaxPool": make_global_pool_rule("REDUCE_MAX"),
    "GlobalLpPool": global_lp_pool,
}
