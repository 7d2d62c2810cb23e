"""Sliding windows along spatial axes, and TFLite's padding modes for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Shape, Tensor


@dataclass(frozen=True, kw_only=True)
class Window:
    """Window that slides along one axis.

    Args:
        size: of the axis.
        kernel: number of entries that the window reads.
        out: number of positions.
        stride: from one position to the next.
        dilation: from one entry that it reads to the next.
        before: padding ahead of the first entry.
        after: padding past the last entry that ONNX counts; it may exceed the padding that is read.
    """

    size: int
    kernel: int
    out: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def extent(self) -> int:
        """Return the span of the window, from the first entry that it reads to the last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def needed_after(self) -> int:
        """Return the padding past the end that is really read; negative if entries remain."""
        return (self.out - 1) * self.stride + self.extent - self.size - self.before

    @property
    def is_valid(self) -> bool:
        """Check that the window reads no padding."""
        return self.before == 0 and self.needed_after <= 0

    @property
    def is_same(self) -> bool:
        """Check that the padding is TFLite's SAME."""
        total_padding = max((self.out - 1) * self.stride + self.extent - self.size, 0)
        return self.out == -(-self.size // self.stride) and self.before == total_padding // 2


def identity_window(size: int) -> Window:
    """Return a window of one entry, which leaves an axis unchanged."""
    return Window(size=size, kernel=1, out=size)


def read_windows(
    builder: TfliteGraphBuilder, node: NodeProto, kernel: Sequence[int]
) -> list[Window]:
    """Read the windows of a convolution or pooling along its spatial axes.

    Args:
        builder: the conversion in progress.
        node: the ONNX node.
        kernel: its size, per spatial axis.
    """
    sizes, outs = builder.shape_of(node.input[0])[2:], builder.shape_of(node.output[0])[2:]
    count = len(sizes)
    strides = get_attribute(node, "strides") or [1] * count
    dilations = get_attribute(node, "dilations") or [1] * count
    pads = get_attribute(node, "pads") or [0] * 2 * count
    auto = get_attribute(node, "auto_pad", "NOTSET")
    windows: list[Window] = []
    for axis, (size, out) in enumerate(zip(sizes, outs, strict=True)):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        before, after = pads[axis], pads[count + axis]
        if auto != "NOTSET":
            before, after = _compute_auto_pads(auto, (out - 1) * strides[axis] + extent - size)
        window = Window(
            size=size,
            kernel=kernel[axis],
            out=out,
            stride=strides[axis],
            dilation=dilations[axis],
            before=before,
            after=after,
        )
        windows.append(window)
    return windows


def _compute_auto_pads(auto: str, missing: int) -> tuple[int, int]:
    total = max(missing, 0) if auto.startswith("SAME") else 0
    less, more = total // 2, total - total // 2
    return (more, less) if auto == "SAME_LOWER" else (less, more)


def find_padding_mode(windows: Sequence[Window]) -> str | None:
    """Return ``VALID`` or ``SAME``; ``None`` if the padding has to be written out."""
    if all(window.is_valid for window in windows):
        return "VALID"
    return "SAME" if all(window.is_same for window in windows) else None


def pad_image(
    builder: TfliteGraphBuilder,
    image: Tensor,
    windows: Sequence[Window],
    *,
    fill: Tensor | None = None,
) -> Tensor:
    """Pad an image with channels last as far as its windows read.

    Args:
        builder: receives the operators.
        image: (batch, space..., channels), with at most three spatial axes.
        windows: one for each spatial axis.
        fill: scalar fill value; ``None`` for zeros.
    """
    sides = [(w.before, max(w.needed_after, 0)) for w in windows]
    paddings = np.asarray([(0, 0), *sides, (0, 0)], np.int32)
    if not paddings.any():
        return image
    shape: Shape = tuple(
        int(size + sum(side)) for size, side in zip(image.shape, paddings, strict=True)
    )
    inputs = [image, builder.store(paddings)]
    if fill is None:
        padded = builder.emit("PAD", inputs, shape, dtype=image.dtype)
    else:
        padded = builder.emit("PADV2", [*inputs, fill], shape, dtype=image.dtype)
    padded.quantization = image.quantization
    return padded


def remove_padding(windows: Sequence[Window]) -> list[Window]:
    """Return the windows over an image whose padding is written out."""
    return [
        Window(
            size=w.size + w.before + max(w.needed_after, 0),
            kernel=w.kernel,
            out=w.out,
            stride=w.stride,
            dilation=w.dilation,
        )
        for w in windows
    ]
