"""Conversion rule of ConvTranspose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import channels_last
from edgekit.conversion.onnx_to_tflite.ops.convolution import Filters, convolve, get_bias
from edgekit.conversion.onnx_to_tflite.ops.windows import Window
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
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


def conv_transpose(low: Lowering, node: NodeProto) -> None:
    """Convert ConvTranspose with one, two or three spatial axes."""
    value, weight = low.value(node, 0), low.value(node, 1)
    rank, groups = len(value.order), get_attribute(node, "group", 1)
    if not 3 <= rank <= 5:
        raise low.refusal(node, f"has {rank - 2} spatial axes; TFLite supports one to three")
    image = low.to_order(value, channels_last(rank))
    axes = _read_axes(low, node, weight.shape[2:])
    bias = low.plain(node, 2) if low.has(node, 2) else None
    kernel = low.to_order(weight, (1, *range(2, rank), 0))
    is_odd = any(axis.computed_size >= axis.full + axis.stride for axis in axes)
    if groups > 1 or rank == 5 or is_odd:
        made = _convolve_stretched(low, image, _flip_kernel(low, kernel, groups, bias), axes)
    else:
        made = _emit_transpose_conv(low, image, Filters(weight=kernel, bias=bias), axes)
    low.bind(node, made, channels_last(rank))


def _read_axes(low: Lowering, node: NodeProto, kernel: Sequence[int]) -> list[_Axis]:
    sizes, outs = low.shape_of(node.input[0])[2:], low.shape_of(node.output[0])[2:]
    count = len(sizes)
    strides = get_attribute(node, "strides") or [1] * count
    dilations = get_attribute(node, "dilations") or [1] * count
    extra = get_attribute(node, "output_padding") or [0] * count
    pads = get_attribute(node, "pads") or [0] * 2 * count
    auto = get_attribute(node, "auto_pad", "NOTSET")
    found: list[_Axis] = []
    for place in range(count):
        extent = (kernel[place] - 1) * dilations[place] + 1
        full = (sizes[place] - 1) * strides[place] + extent
        before = pads[place]
        if get_attribute(node, "output_shape") or auto.startswith("SAME"):
            cut = max(full + extra[place] - outs[place], 0)
            before = cut // 2 if auto == "SAME_UPPER" else cut - cut // 2
        axis = _Axis(
            size=sizes[place],
            kernel=kernel[place],
            stride=strides[place],
            dilation=dilations[place],
            before=before,
            out=outs[place],
        )
        found.append(axis)
    return found


def _emit_transpose_conv(
    low: Lowering, image: Tensor, filters: Filters, axes: list[_Axis]
) -> Tensor:
    """Emit TRANSPOSE_CONV, and crop its output if it is too large."""
    kernel = filters.weight
    if len(axes) == 1:
        axes = [_POINT, *axes]
        image = low.reshape(image, (image.shape[0], 1, *image.shape[1:]))
        kernel = low.reshape(kernel, (kernel.shape[0], 1, *kernel.shape[1:]))
        flat = _emit_transpose_conv(low, image, Filters(weight=kernel, bias=filters.bias), axes)
        return low.reshape(flat, (flat.shape[0], *flat.shape[2:]))
    for place, axis in enumerate(axes):
        kernel = _insert_zeros(low, kernel, place + 1, axis.dilation)
    is_same = all(axis.is_same for axis in axes)
    sizes = [axis.out if is_same else axis.computed_size for axis in axes]
    shape = (image.shape[0], *sizes, kernel.shape[0])
    options = {
        "padding": "SAME" if is_same else "VALID",
        "stride_h": axes[0].stride,
        "stride_w": axes[1].stride,
    }
    inputs = [low.int32(shape), kernel, image, get_bias(low, filters)]
    made = low.emit("TRANSPOSE_CONV", inputs, shape, options=options)
    out = (shape[0], *(axis.out for axis in axes), shape[3])
    if is_same or shape == out:
        return made
    begin = low.int32([0, *(axis.before for axis in axes), 0])
    return low.emit("SLICE", [made, begin, low.int32(out)], out)


def _insert_zeros(low: Lowering, tensor: Tensor, axis: int, step: int) -> Tensor:
    """Insert ``step - 1`` zeros between the entries of an axis."""
    size = tensor.shape[axis]
    if step == 1 or size == 1:
        return tensor
    ahead = int(np.prod(tensor.shape[:axis]))
    inner = int(np.prod(tensor.shape[axis + 1 :]))
    apart = low.reshape(tensor, (ahead, size, 1, inner))
    paddings = np.asarray([[0, 0], [0, 0], [0, step - 1], [0, 0]], np.int32)
    wide = low.emit("PAD", [apart, low.store(paddings)], (ahead, size, step, inner))
    flat = low.reshape(wide, (ahead, size * step, inner))
    kept = (ahead, (size - 1) * step + 1, inner)
    flat = low.emit("SLICE", [flat, low.int32([0, 0, 0]), low.int32(kept)], kept)
    return low.reshape(flat, (*tensor.shape[:axis], kept[1], *tensor.shape[axis + 1 :]))


def _flip_kernel(low: Lowering, kernel: Tensor, groups: int, bias: Tensor | None) -> Filters:
    """Return the filters of the equivalent convolution over a stretched input.

    Args:
        low: receives the operators.
        kernel: (out / groups, space..., in).
        groups: number of channel groups.
        bias: one number per output channel, if any.
    """
    each, *space, channels = kernel.shape
    if max(space) > 1:
        turned_axes = low.int32(range(1, len(space) + 1))
        kernel = low.emit("REVERSE_V2", [kernel, turned_axes], kernel.shape)
    area = int(np.prod(space))
    apart = low.reshape(kernel, (each, area, groups, channels // groups))
    turned = low.transpose(apart, (2, 0, 1, 3))
    weight = low.reshape(turned, (groups * each, *space, channels // groups))
    return Filters(weight=weight, bias=bias, groups=groups)


def _convolve_stretched(
    low: Lowering, image: Tensor, filters: Filters, axes: list[_Axis]
) -> Tensor:
    """Convolve the input with zeros inserted between its entries."""
    windows: list[Window] = []
    for place, axis in enumerate(axes):
        image = _insert_zeros(low, image, place + 1, axis.stride)
        size = image.shape[place + 1]
        before = axis.extent - 1 - axis.before
        after = axis.out - 1 + axis.extent - size - before
        image = _crop(low, image, place + 1, max(-before, 0), max(-after, 0))
        window = Window(
            size=image.shape[place + 1],
            kernel=axis.kernel,
            out=axis.out,
            dilation=axis.dilation,
            before=max(before, 0),
        )
        windows.append(window)
    return convolve(low, image, filters, windows)


def _crop(low: Lowering, image: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Crop entries of an image that no window position reads."""
    if before == after == 0:
        return image
    size = image.shape[axis] - before - after
    shape = (*image.shape[:axis], size, *image.shape[axis + 1 :])
    begin = [before if place == axis else 0 for place in range(len(shape))]
    return low.emit("SLICE", [image, low.int32(begin), low.int32(shape)], shape)


RULES = {"ConvTranspose": conv_transpose}
