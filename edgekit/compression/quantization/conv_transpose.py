"""Conversion of transposed convolutions to convolutions, for which integer kernels exist."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.operators import is_standard

_TO_THE_END = np.iinfo(np.int64).max

Floats = NDArray[np.float32]


def replace_conv_transposes(proto: ModelProto) -> None:
    """Replace each 2-D ConvTranspose of the main graph with one stride by a Conv, in place.

    The Conv computes stride x stride phases of each channel, DepthToSpace interleaves them, and
    Slice removes the padding. A ConvTranspose with dilations or different strides per axis is left
    unchanged.

    Source: Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"
    """
    index = GraphIndex(proto)
    nodes: list[NodeProto] = []
    for node in index.graph.node:
        nodes += _build_conv(index, node) if _is_simple(index, node) else [node]
    index.replace_nodes(nodes)
    index.drop_unread_constants()


def _is_simple(index: GraphIndex, node: NodeProto) -> bool:
    if not is_standard(node) or node.op_type != "ConvTranspose":
        return False
    weight = index.initializers.get(node.input[1])
    if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) != 4:
        return False
    if read_attribute(node, "auto_pad", b"NOTSET") != b"NOTSET" or read_attribute(
        node, "output_shape", None
    ):
        return False
    strides = _get_ints(node, "strides", [1, 1])
    spare = _compute_surplus(node, list(weight.dims[2:]), strides[0])
    same = strides[0] == strides[1] and _get_ints(node, "dilations", [1, 1]) == [1, 1]
    bias = node.input[2] if len(node.input) > 2 else ""
    return same and min(spare) >= 0 and (not bias or bias in index.initializers)


def _get_ints(node: NodeProto, name: str, default: list[int]) -> list[int]:
    found = read_attribute(node, name, default)
    return list(found) if isinstance(found, list) else default


def _compute_surplus(node: NodeProto, kernel: list[int], stride: int) -> list[int]:
    """Return the surplus positions that the Conv computes at the end of each output axis."""
    after = _get_ints(node, "pads", [0] * 4)[2:]
    more = _get_ints(node, "output_padding", [0, 0])
    taps = [-(-k // stride) for k in kernel]
    return [stride * t - k + a - m for t, k, a, m in zip(taps, kernel, after, more, strict=True)]


def _build_conv(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    weight = index.float_constant(node.input[1])
    stride = _get_ints(node, "strides", [1, 1])[0]
    group = read_attribute(node, "group", 1)
    phases = _rearrange_phases(weight, stride, group if isinstance(group, int) else 1)
    inputs = [node.input[0], index.add_constant("n", phases)]
    if len(node.input) > 2 and node.input[2]:
        bias = np.repeat(index.float_constant(node.input[2]), stride * stride)
        inputs.append(index.add_constant("n", bias))
    around = [taps - 1 for taps in phases.shape[2:]]
    names = [index.fresh("n"), index.fresh("n"), node.output[0]]
    made = [helper.make_node("Conv", inputs, names[:1], pads=around * 2, group=group)]
    if stride > 1:
        shuffle = helper.make_node("DepthToSpace", names[:1], names[1:2], blocksize=stride)
        shuffle.attribute.append(helper.make_attribute("mode", "CRD"))
        made.append(shuffle)
    before = _get_ints(node, "pads", [0] * 4)[:2]
    spare = _compute_surplus(node, list(weight.shape[2:]), stride)
    if any((*before, *spare)):
        ends = [-s if s else _TO_THE_END for s in spare]
        bounds = [index.add_constant("n", np.array(v)) for v in (before, ends, [2, 3])]
        made.append(helper.make_node("Slice", [made[-1].output[0], *bounds], names[2:]))
    made[-1].output[0] = node.output[0]
    return made


def _rearrange_phases(weight: Floats, stride: int, group: int) -> Floats:
    """Rearrange [C, M, h, w] to a Conv weight [group M stride², C / group, taps, taps]."""
    channels, outputs, *kernel = weight.shape
    taps = [-(-k // stride) for k in kernel]
    whole = np.zeros((channels, outputs, taps[0] * stride, taps[1] * stride), np.float32)
    whole[:, :, : kernel[0], : kernel[1]] = weight
    split = whole.reshape(group, channels // group, outputs, taps[0], stride, taps[1], stride)
    moved = split[:, :, :, ::-1, :, ::-1].transpose(0, 2, 4, 6, 1, 3, 5)
    return np.ascontiguousarray(moved.reshape(-1, channels // group, *taps))
