"""Replacement of layers by two low-rank factors in an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, helper

from edgekit.compression.layers.stored_layers import shift_bias
from edgekit.compression.low_rank.decompose import Split
from edgekit.compression.low_rank.factors import SpatialFactors
from edgekit.compression.numerics import Doubles
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute

# Attributes of a convolution with one or two entries for each axis of an image.
_BY_AXIS = ("strides", "dilations", "pads")


def write_splits(index: GraphIndex, picked: Sequence[tuple[Split, int]]) -> None:
    """Replace layers by their factors of a rank, in place; biases take the mean error.

    The output of the second node keeps the name of the layer's output.

    Args:
        index: the graph.
        picked: the factorized layers, each with its rank.
    """
    thin: dict[int, tuple[NodeProto, NodeProto]] = {}
    for split, rank in picked:
        shift_bias(index, split.whole.stored, split.way.shift(rank))
        weights = [each.astype(np.float32) for each in _build_tensors(split, rank)]
        names = [
            index.add_constant(f"{split.name}/{end}", w)
            for end, w in zip("ab", weights, strict=True)
        ]
        for layer in (split.whole.layer, *split.whole.others):
            thin[id(layer.node)] = _build_nodes(index, split, layer.node, names)
    nodes: list[NodeProto] = []
    for node in index.graph.node:
        nodes += thin.get(id(node), (node,))
    index.replace_nodes(nodes)
    index.drop_unread_constants()


def _build_nodes(
    index: GraphIndex, split: Split, old: NodeProto, names: Sequence[str]
) -> tuple[NodeProto, NodeProto]:
    first, second = (NodeProto(), NodeProto())
    first.CopyFrom(old)
    second.CopyFrom(old)
    between = index.fresh(f"{old.output[0]}/between")
    place = split.whole.layer.contraction.weight_position if split.whole.layer.contraction else 1
    del first.input[2:]
    first.input[place] = names[0]
    first.output[0] = between
    first.name = index.fresh(f"{old.name}/a") if old.name else ""
    second.input[1 - place], second.input[place] = between, names[1]
    if old.op_type == "Conv":
        _set_windows(split, old, first, second)
    return first, second


def _build_tensors(split: Split, rank: int) -> tuple[Doubles, Doubles]:
    """Build both factors in the shapes that the operator stores."""
    first, second = split.way.compute_pair(rank)
    layer = split.whole.layer
    if isinstance(split.way, SpatialFactors):
        return first, second
    if layer.contraction is not None:
        thin = layer.contraction
        fewer = tuple(rank if a in thin.outputs else n for a, n in enumerate(layer.shape))
        narrow = tuple(rank if a in thin.inputs else n for a, n in enumerate(layer.shape))
        made = thin.from_matrix(first, fewer), thin.from_matrix(second, narrow)
        if thin.groups:
            return made
        # One factor keeps the axes of size 1; with both, a vector would gain an axis.
        flat = [each.reshape(each.shape[-2:]) for each in made]
        return (flat[0], made[1]) if thin.weight_position == 0 else (made[0], flat[1])
    if layer.node.op_type == "Conv":
        kernel = layer.shape[2:]
        first = first.reshape(-1, layer.shape[1], *kernel)
        return first, second.reshape(layer.shape[0], -1, *(1 for _ in kernel))
    return (first[0], second[0]) if layer.axis == 0 else (first[0].T, second[0].T)


def _set_windows(split: Split, old: NodeProto, first: NodeProto, second: NodeProto) -> None:
    """Divide the kernel, strides and padding of a convolution between its two factors."""
    kernel = list(split.whole.layer.shape[2:])
    if not isinstance(split.way, SpatialFactors):
        _replace_attributes(
            second, {"kernel_shape": [1] * len(kernel), "group": split.whole.layer.groups}
        )
        return
    for node, axis in ((first, 0), (second, 1)):
        kept: dict[str, object] = {"kernel_shape": [1, 1]}
        kept["kernel_shape"] = [n if i == axis else 1 for i, n in enumerate(kernel)]
        for name in _BY_AXIS:
            given = read_attribute(old, name, None)
            if isinstance(given, list):
                rest = 0 if name == "pads" else 1
                kept[name] = [n if i % 2 == axis else rest for i, n in enumerate(given)]
        automatic = read_attribute(old, "auto_pad", b"NOTSET")
        if automatic != b"NOTSET":
            kept["auto_pad"] = automatic
        _replace_attributes(node, kept)


def _replace_attributes(node: NodeProto, attributes: dict[str, object]) -> None:
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
