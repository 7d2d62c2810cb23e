"""Conversion rule of ConvTranspose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import channels_last
from edgekit.conversion.onnx_to_tflite.ops.convolution import Filters, convolve, get_bias
from edgekit.conversion.onnx_to_tflite.ops.windows import Window
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Geometry of a transposed convolution along one axis.

    Args:
        size: of the input.
        kernel: size of the kernel.
        stride: of the output for one step of the input.
        dilation: of the kernel.
        before: entries to crop from the start of the full output.
        out: size of the output.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    out: int

    @property
    def extent(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def full(self) -> int:
        return (self.size - 1) * self.stride + self.extent

    @property
    def is_same(self) -> bool:
        cut = self.full - self.out
        fits = self.size == -(-self.out // self.stride)
        return cut >= 0 and self.before == cut // 2 and fits

    @property
    def computed_size(self) -> int:
        """Return the size to compute before cropping.

        TRANSPOSE_CONV is used if it is less than a stride above the full output.
        """
        return max(self.full, self.before + self.out)


_POINT = _Axis(size=1, kernel=1, stride=1, dilation=1, before=0, out=1)


def conv_transpose(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert ConvTranspose with one, two or three spatial axes."""
    value, weight = builder.value(node, 0), builder.value(node, 1)
    rank, groups = len(value.order), get_attribute(node, "group", 1)
    if not 3 <= rank <= 5:
        raise builder.refusal(node, f"has {rank - 2} spatial axes; TFLite supports one to three")
    image = builder.to_order(value, channels_last(rank))
    axes = _read_axes(builder, node, weight.shape[2:])
    bias = builder.plain(node, 2) if builder.has(node, 2) else None
    kernel = builder.to_order(weight, (1, *range(2, rank), 0))
    is_odd = any(axis.computed_size >= axis.full + axis.stride for axis in axes)
    if groups > 1 or rank == 5 or is_odd:
        result = _convolve_stretched(
            builder, image, _flip_kernel(builder, kernel, groups, bias), axes
        )
    else:
        result = _emit_transpose_conv(builder, image, Filters(weight=kernel, bias=bias), axes)
    builder.bind(node, result, channels_last(rank))


def _read_axes(builder: TfliteGraphBuilder, node: NodeProto, kernel: Sequence[int]) -> list[_Axis]:
    sizes, outs = builder.shape_of(node.input[0])[2:], builder.shape_of(node.output[0])[2:]
    count = len(sizes)
    strides = get_attribute(node, "strides") or [1] * count
    dilations = get_attribute(node, "dilations") or [1] * count
    extra = get_attribute(node, "output_padding") or [0] * count
    pads = get_attribute(node, "pads") or [0] * 2 * count
    auto = get_attribute(node, "auto_pad", "NOTSET")
    axes: list[_Axis] = []
    for position in range(count):
        extent = (kernel[position] - 1) * dilations[position] + 1
        full = (sizes[position] - 1) * strides[position] + extent
        before = pads[position]
        if get_attribute(node, "output_shape") or auto.startswith("SAME"):
            cut = max(full + extra[position] - outs[position], 0)
            before = cut // 2 if auto == "SAME_UPPER" else cut - cut // 2
        axis = _Axis(
            size=sizes[position],
            kernel=kernel[position],
            stride=strides[position],
            dilation=dilations[position],
            before=before,
            out=outs[position],
        )
        axes.append(axis)
    return axes


def _emit_transpose_conv(
    builder: TfliteGraphBuilder, image: Tensor, filters: Filters, axes: list[_Axis]
) -> Tensor:
    """Emit TRANSPOSE_CONV, and crop its output if it is too large."""
    kernel = filters.weight
    if len(axes) == 1:
        axes = [_POINT, *axes]
        image = builder.reshape(image, (image.shape[0], 1, *image.shape[1:]))
        kernel = builder.reshape(kernel, (kernel.shape[0], 1, *kernel.shape[1:]))
        flat = _emit_transpose_conv(builder, image, Filters(weight=kernel, bias=filters.bias), axes)
        return builder.reshape(flat, (flat.shape[0], *flat.shape[2:]))
    for position, axis in enumerate(axes):
        kernel = _insert_zeros(builder, kernel, position + 1, axis.dilation)
    is_same = all(axis.is_same for axis in axes)
    sizes = [axis.out if is_same else axis.computed_size for axis in axes]
    shape = (image.shape[0], *sizes, kernel.shape[0])
    options = {
        "padding": "SAME" if is_same else "VALID",
        "stride_h": axes[0].stride,
        "stride_w": axes[1].stride,
    }
    inputs = [builder.int32(shape), kernel, image, get_bias(builder, filters)]
    result = builder.emit("TRANSPOSE_CONV", inputs, shape, options=options)
    out = (shape[0], *(axis.out for axis in axes), shape[3])
    if is_same or shape == out:
        return result
    begin = builder.int32([0, *(axis.before for axis in axes), 0])
    return builder.emit("SLICE", [result, begin, builder.int32(out)], out)


def _insert_zeros(builder: TfliteGraphBuilder, tensor: Tensor, axis: int, step: int) -> Tensor:
    """Insert ``step - 1`` zeros between the entries of an axis."""
    size = tensor.shape[axis]
    if step == 1 or size == 1:
        return tensor
    ahead = int(np.prod(tensor.shape[:axis]))
    inner = int(np.prod(tensor.shape[axis + 1 :]))
    column = builder.reshape(tensor, (ahead, size, 1, inner))
    paddings = np.asarray([[0, 0], [0, 0], [0, step - 1], [0, 0]], np.int32)
    padded = builder.emit("PAD", [column, builder.store(paddings)], (ahead, size, step, inner))
    flat = builder.reshape(padded, (ahead, size * step, inner))
    kept_sizes = (ahead, (size - 1) * step + 1, inner)
    flat = builder.emit(
        "SLICE", [flat, builder.int32([0, 0, 0]), builder.int32(kept_sizes)], kept_sizes
    )
    return builder.reshape(flat, (*tensor.shape[:axis], kept_sizes[1], *tensor.shape[axis + 1 :]))


def _flip_kernel(
    builder: TfliteGraphBuilder, kernel: Tensor, groups: int, bias: Tensor | None
) -> Filters:
    """Return the filters of the equivalent convolution over a stretched input.

    Args:
        builder: receives the operators.
        kernel: (out / groups, space..., in).
        groups: number of channel groups.
        bias: one number per output channel, if any.
    """
    group_channels, *space, channels = kernel.shape
    if max(space) > 1:
        turned_axes = builder.int32(range(1, len(space) + 1))
        kernel = builder.emit("REVERSE_V2", [kernel, turned_axes], kernel.shape)
    area = int(np.prod(space))
    grouped = builder.reshape(kernel, (group_channels, area, groups, channels // groups))
    turned = builder.transpose(grouped, (2, 0, 1, 3))
    weight = builder.reshape(turned, (groups * group_channels, *space, channels // groups))
    return Filters(weight=weight, bias=bias, groups=groups)


def _convolve_stretched(
    builder: TfliteGraphBuilder, image: Tensor, filters: Filters, axes: list[_Axis]
) -> Tensor:
    """Convolve the input with zeros inserted between its entries."""
    windows: list[Window] = []
    for position, axis in enumerate(axes):
        image = _insert_zeros(builder, image, position + 1, axis.stride)
        size = image.shape[position + 1]
        before = axis.extent - 1 - axis.before
        after = axis.out - 1 + axis.extent - size - before
        image = _crop(builder, image, position + 1, max(-before, 0), max(-after, 0))
        window = Window(
            size=image.shape[position + 1],
            kernel=axis.kernel,
            out=axis.out,
            dilation=axis.dilation,
            before=max(before, 0),
        )
        windows.append(window)
    return convolve(builder, image, filters, windows)


def _crop(builder: TfliteGraphBuilder, image: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Crop entries of an image that no window position reads."""
    if before == after == 0:
        return image
    size = image.shape[axis] - before - after
    shape = (*image.shape[:axis], size, *image.shape[axis + 1 :])
    begin = [before if position == axis else 0 for position in range(len(shape))]
    return builder.emit("SLICE", [image, builder.int32(begin), builder.int32(shape)], shape)


RULES = {"ConvTranspose": conv_transpose}
