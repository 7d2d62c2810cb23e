"""Conversion rule of Conv, and helpers for convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import channels_last
from edgekit.conversion.onnx_to_tflite.ops.windows import (
    Window,
    find_padding_mode,
    identity_window,
    pad_image,
    read_windows,
    remove_padding,
)
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Shape, Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Filters:
    """Weights, bias and groups of a convolution.

    Args:
        weight: (out, space..., in / groups): that of ``Conv`` with channels last.
        bias: one number per output channel, if any.
        groups: number of channel groups.
    """

    weight: Tensor
    bias: Tensor | None
    groups: int = 1


def conv(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Conv with one, two or three spatial axes."""
    value, weight = builder.value(node, 0), builder.value(node, 1)
    rank = len(value.order)
    if not 3 <= rank <= 5:
        raise builder.refusal(node, f"has {rank - 2} spatial axes; TFLite supports one to three")
    image = builder.to_order(value, channels_last(rank))
    filters = Filters(
        weight=builder.to_order(weight, channels_last(rank)),
        bias=builder.plain(node, 2) if builder.has(node, 2) else None,
        groups=get_attribute(node, "group", 1),
    )
    result = convolve(builder, image, filters, read_windows(builder, node, weight.shape[2:]))
    builder.bind(node, result, channels_last(rank))


def convolve(
    builder: TfliteGraphBuilder, image: Tensor, filters: Filters, windows: Sequence[Window]
) -> Tensor:
    """Convolve an image with channels last.

    Args:
        builder: receives the operators.
        image: (batch, space..., channels).
        filters: of as many spatial axes.
        windows: one for each spatial axis.
    """
    if len(windows) == 1:
        return _convolve_1d(builder, image, filters, windows[0])
    padding = find_padding_mode(windows)
    if padding is None:
        image, windows, padding = (
            pad_image(builder, image, windows),
            remove_padding(windows),
            "VALID",
        )
    if len(windows) == 3:
        return _convolve_3d(builder, image, filters, windows, padding)
    shape = (image.shape[0], *(w.out for w in windows), filters.weight.shape[0])
    options = {
        "padding": padding,
        "stride_h": windows[0].stride,
        "stride_w": windows[1].stride,
        "dilation_h_factor": windows[0].dilation,
        "dilation_w_factor": windows[1].dilation,
    }
    bias = get_bias(builder, filters)
    channels = image.shape[3]
    if filters.groups > 1 and filters.groups == channels:
        return _convolve_depthwise(builder, [image, filters.weight, bias], shape, options)
    return builder.emit("CONV_2D", [image, filters.weight, bias], shape, options=options)


def get_bias(builder: TfliteGraphBuilder, filters: Filters) -> Tensor:
    """Return the bias of filters, or zeros if there is none."""
    if filters.bias is not None:
        return filters.bias
    return builder.store(np.zeros(filters.weight.shape[0], np.float32))


def _convolve_depthwise(
    builder: TfliteGraphBuilder, inputs: list[Tensor], shape: Shape, options: dict[str, object]
) -> Tensor:
    image, weight, bias = inputs
    kernel = builder.transpose(weight, (3, 1, 2, 0))
    options = {**options, "depth_multiplier": weight.shape[0] // image.shape[3]}
    return builder.emit("DEPTHWISE_CONV_2D", [image, kernel, bias], shape, options=options)


def _convolve_1d(
    builder: TfliteGraphBuilder, image: Tensor, filters: Filters, window: Window
) -> Tensor:
    batch, length, channels = image.shape
    out, kernel, group_channels = filters.weight.shape
    flat = Filters(
        weight=builder.reshape(filters.weight, (out, 1, kernel, group_channels)),
        bias=filters.bias,
        groups=filters.groups,
    )
    result = convolve(
        builder,
        builder.reshape(image, (batch, 1, length, channels)),
        flat,
        [identity_window(1), window],
    )
    return builder.reshape(result, (batch, window.out, out))


def _convolve_3d(
    builder: TfliteGraphBuilder,
    image: Tensor,
    filters: Filters,
    windows: Sequence[Window],
    padding: str,
) -> Tensor:
    names = ("d", "h", "w")
    options: dict[str, object] = {"padding": padding}
    options |= {f"stride_{n}": w.stride for n, w in zip(names, windows, strict=True)}
    options |= {f"dilation_{n}_factor": w.dilation for n, w in zip(names, windows, strict=True)}
    groups, out = filters.groups, filters.weight.shape[0]
    images = split(builder, image, groups, axis=4)
    kernels = split(builder, builder.transpose(filters.weight, (1, 2, 3, 4, 0)), groups, axis=4)
    shape = (image.shape[0], *(w.out for w in windows), out // groups)
    result = [
        builder.emit("CONV_3D", [each, kernel], shape, options=options)
        for each, kernel in zip(images, kernels, strict=True)
    ]
    stacked = concatenate(builder, result, axis=4)
    if filters.bias is None:
        return stacked
    return builder.emit("ADD", [stacked, filters.bias], stacked.shape)


def split(builder: TfliteGraphBuilder, tensor: Tensor, parts: int, *, axis: int) -> list[Tensor]:
    """Split a tensor into equal parts along a storage axis."""
    if parts == 1:
        return [tensor]
    shape = list(tensor.shape)
    shape[axis] //= parts
    result = [
        Tensor(name=f"{tensor.name}/{part}", dtype=tensor.dtype, shape=tuple(shape))
        for part in range(parts)
    ]
    builder.emit_many("SPLIT", [builder.int32(axis), tensor], result, options={"num_splits": parts})
    return result


def concatenate(builder: TfliteGraphBuilder, parts: Sequence[Tensor], *, axis: int) -> Tensor:
    """Concatenate tensors along a storage axis."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    options = {"axis": axis}
    return builder.emit("CONCATENATION", parts, tuple(shape), dtype=parts[0].dtype, options=options)


RULES = {"Conv": conv}
