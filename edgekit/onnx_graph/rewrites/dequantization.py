"""Conversion of int8 weights between dequantization at each inference and once at load.

onnxruntime runs the DequantizeLinear of a stored weight at each inference, unless an integer kernel
takes the integers. Cast and Mul compute the same, and onnxruntime folds them into a float weight
when it loads the file.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.qdq_placement import find_channel_axis


def dequantize_at_load(proto: ModelProto) -> None:
    """Replace each DequantizeLinear of an int8 constant by Cast and Mul, in place."""
    index = GraphIndex(proto)
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        replacement = make_cast_and_mul(index, node.output[0]) if node.output else []
        if replacement:
            replacement[-1].output[0] = node.output[0]
        nodes += replacement or [node]
    index.replace_nodes(nodes)
    GraphIndex(proto).drop_unread_constants()


def make_cast_and_mul(index: GraphIndex, name: str) -> list[NodeProto]:
    """Build the Cast and Mul that compute a dequantized int8 constant.

    Args:
        index: the main graph, which gets the scales in the shape that Mul needs.
        name: the value that a DequantizeLinear computes.

    Returns:
        The two nodes, the second with a new output; empty if the value is no such constant.
    """
    producer = index.producer.get(name)
    if producer is None or producer.op_type != "DequantizeLinear":
        return []
    integers, scales = (index.initializers.get(input_name) for input_name in producer.input[:2])
    if integers is None or scales is None or integers.data_type != TensorProto.INT8:
        return []
    if scales.data_type != TensorProto.FLOAT or len(scales.dims) > 1:
        return []
    zeros = [index.initializers.get(input_name) for input_name in producer.input[2:] if input_name]
    if any(
        input_name is None or index.float_constant(input_name.name).any() for input_name in zeros
    ):
        return []
    axis = read_attribute(producer, "axis", 1)
    shape = [1] * len(integers.dims)
    if scales.dims and isinstance(axis, int):
        shape[axis] = -1
    factor = index.add_constant("ws", index.float_constant(scales.name).reshape(shape))
    cast_name, scaled_name = index.fresh("c"), index.fresh("d")
    return [
        helper.make_node("Cast", [integers.name], [cast_name], to=TensorProto.FLOAT),
        helper.make_node("Mul", [cast_name, factor], [scaled_name]),
    ]


def dequantize_by_operator(proto: ModelProto) -> None:
    """Replace Cast and Mul by the DequantizeLinear that quantization passes read, in place.

    Only int8 weights with a scale per output channel change that integer kernels can read. The
    opset must be 13 or above.
    """
    main = GraphIndex(proto)
    layer_weights = _find_layer_weights(main)
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        axis = layer_weights.get(node.output[0]) if node.output else None
        names = None if axis is None else _find_integers_and_scales(main, node, axis)
        if names is None:
            nodes.append(node)
        else:
            outputs = list(node.output)
            nodes.append(helper.make_node("DequantizeLinear", names, outputs, axis=axis))
    read_names = {name for node in nodes for name in node.input} | main.outputs | main.inner_reads
    main.replace_nodes([n for n in nodes if n.op_type != "Cast" or n.output[0] in read_names])
    GraphIndex(proto).drop_unread_constants()


def _find_layer_weights(main: GraphIndex) -> dict[str, int]:
    """Find the Mul outputs that only layers read as weights, with their channel axis."""
    products = {n.output[0]: n for n in main.graph.node if n.op_type == "Mul"}
    axes: dict[str, set[int | None]] = {}
    for index in (main, *main.inner()):
        for node in index.graph.node:
            for position, name in enumerate(node.input):
                if name in products:
                    rank = _get_rank(main, products[name])
                    axis = find_channel_axis(index, node, rank) if position == 1 else None
                    axes.setdefault(name, set()).add(axis)
    return {
        name: axis
        for name, weight_axes in axes.items()
        if len(weight_axes) == 1
        and (axis := weight_axes.pop()) is not None
        and name not in main.outputs
    }


def _get_rank(index: GraphIndex, product: NodeProto) -> int:
    """Return the rank of the constant factor of a product; 0 if none is constant."""
    stored = [index.initializers[name] for name in product.input if name in index.initializers]
    return max((len(tensor.dims) for tensor in stored), default=0)


def _find_integers_and_scales(index: GraphIndex, product: NodeProto, axis: int) -> list[str] | None:
    """Return the stored integers behind a Mul, and their scales along an axis as a new constant."""
    for first, second in (product.input, reversed(product.input)):
        cast, scales = index.producer.get(first), index.initializers.get(second)
        if cast is None or cast.op_type != "Cast" or scales is None:
            continue
        integers = index.initializers.get(cast.input[0])
        if integers is None or integers.data_type != TensorProto.INT8:
            continue
        shape = [1] * len(integers.dims)
        shape[axis] = integers.dims[axis]
        if scales.data_type == TensorProto.FLOAT and list(scales.dims) == shape:
            flat = index.float_constant(scales.name).ravel()
            return [integers.name, index.add_constant("s", flat)]
    return None
