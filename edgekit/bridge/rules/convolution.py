"""Convolutions."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from edgekit.bridge.layout import Order, channels_last, stored
from edgekit.bridge.lowering import Lowering, attr


def conv(low: Lowering, node: NodeProto) -> None:
    """Conv of two dimensions and one group."""
    order: Order = channels_last(4)
    image = low.ordered(low.value(node, 0), order)
    weight = low.ordered(low.value(node, 1), (0, 2, 3, 1))
    pads: list[int] = attr(node, "pads", [0, 0, 0, 0])
    if any(pads):
        paddings = low.stored(
            np.asarray([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], np.int32)
        )
        n, h, w, c = image.shape
        padded = (n, h + pads[0] + pads[2], w + pads[1] + pads[3], c)
        image = low.emit("PAD", [image, paddings], padded)
    stride, dilation = attr(node, "strides", [1, 1]), attr(node, "dilations", [1, 1])
    options = {
        "padding": "VALID",
        "stride_h": stride[0],
        "stride_w": stride[1],
        "dilation_h_factor": dilation[0],
        "dilation_w_factor": dilation[1],
    }
    bias = low.plain(node, 2) if low.has(node, 2) else low.float32([0.0] * weight.shape[0])
    made_shape = stored(low.shape_of(node.output[0]), order)
    made = low.emit("CONV_2D", [image, weight, bias], made_shape, options=options)
    low.bind(node, made, order)


RULES = {"Conv": conv}
