"""Conversion of int32 bias scales between stored vectors and products of constants.

The scale of a layer's bias is the scale of its input times the scales of its weight. onnxruntime
folds a product of constants when it loads a file, before it looks for integer kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import BIASED_OPS, is_standard

# Fewer scales take about as many bytes as the node that computes them.
_LEAST_SCALES = 16
_SMALLEST = np.finfo(np.float32).tiny


def compute_bias_scales(proto: ModelProto) -> None:
    """Replace stored bias scales by a Mul of the input and weight scales, in place.

    Each Mul writes to the name of the vector that it replaces. The Mul nodes come first in the
    graph, then the nodes that dequantize biases: similar nodes in a row take fewer bytes once the
    file is packed.
    """
    index = GraphIndex(proto)
    products: dict[str, NodeProto] = {}
    for layer in proto.graph.node:
        names = _find_layer_scales(index, layer)
        if names is None:
            continue
        bias, *factors = names
        if _only_scales_biases(index, bias) and _is_product(index, bias, factors):
            products[bias] = helper.make_node("Mul", factors, [bias])
    if not products:
        return
    for position in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[position].name in products:
            del proto.graph.initializer[position]
    initializer_names = (
        index.initializers.keys()
    )  # taken before the edit, so the replaced vectors count too
    nodes = list(proto.graph.node)
    first = [n for n in nodes if restores_bias(index, n) and initializer_names >= set(n.input)]
    product_names = {n.output[0] for n in first}
    rest = [n for n in nodes if not n.output or n.output[0] not in product_names]
    index.replace_nodes([*products.values(), *first, *rest])


def store_bias_scales(proto: ModelProto) -> None:
    """Replace each Mul that computes bias scales by the stored vector, in place."""
    index = GraphIndex(proto)
    biases = {
        node.output[0]: _multiply_constants(index, node.input)
        for node in _iter_scale_products(index)
    }
    if not biases:
        return
    for name, scales in biases.items():
        proto.graph.initializer.append(numpy_helper.from_array(scales, name))
    index.replace_nodes([n for n in proto.graph.node if biases.keys().isdisjoint(n.output)])


def computes_bias_scales(proto: ModelProto) -> bool:
    """Return whether a graph computes bias scales from constants."""
    return any(_iter_scale_products(GraphIndex(proto)))


def restores_bias(index: GraphIndex, node: NodeProto) -> bool:
    """Return whether a node dequantizes a stored int32 vector, with stored or computed scales."""
    tensor = index.initializers.get(node.input[0]) if node.input else None
    is_int32 = tensor is not None and tensor.data_type == TensorProto.INT32
    return is_int32 and node.op_type == "DequantizeLinear"


def _iter_scale_products(index: GraphIndex) -> Iterator[NodeProto]:
    """Yield the Mul nodes of the main graph that compute bias scales from constants."""
    for node in index.graph.node:
        if node.op_type != "Mul" or not is_standard(node):
            continue
        if _are_factors(index, node.input) and _only_scales_biases(index, node.output[0]):
            yield node


def _find_layer_scales(index: GraphIndex, layer: NodeProto) -> list[str] | None:
    """Return the names of a layer's stored scales (bias, input, weight), or ``None``."""
    if layer.op_type not in BIASED_OPS or len(layer.input) < 3:
        return None
    names = []
    for value in (layer.input[2], layer.input[0], layer.input[1]):
        producer = index.producer.get(value)
        if producer is None or producer.op_type != "DequantizeLinear":
            return None
        names.append(producer.input[1])
    is_stored = _is_float(index, names[0]) and _are_factors(index, names[1:])
    return names if is_stored else None


def _are_factors(index: GraphIndex, names: Sequence[str]) -> bool:
    """Return whether two values are a stored scalar and a stored vector or scalar, in any order."""
    if len(names) != 2 or not all(_is_float(index, name) for name in names):
        return False
    shapes = [tuple(index.initializers[name].dims) for name in names]
    return any(shape in ((), (1,)) for shape in shapes) and all(len(s) <= 1 for s in shapes)


def _is_float(index: GraphIndex, name: str) -> bool:
    """Return whether a value is a float32 constant that no caller can replace."""
    tensor = index.initializers.get(name)
    is_fed = any(value.name == name for value in index.graph.input)
    return tensor is not None and tensor.data_type == TensorProto.FLOAT and not is_fed


def _only_scales_biases(index: GraphIndex, name: str) -> bool:
    """Return whether a value is read only as the scale of stored int32 vectors."""
    readers = index.readers.get(name, [])
    if not readers or name in index.outputs or name in index.inner_reads:
        return False
    return all(
        restores_bias(index, node)
        and [place for place, read in enumerate(node.input) if read == name] == [1]
        for node in readers
    )


def _is_product(index: GraphIndex, name: str, factors: Sequence[str]) -> bool:
    """Return whether enough stored scales equal the product of the factors bit for bit."""
    scales, product = index.float_constant(name), _multiply_constants(index, factors)
    is_equal = scales.shape == product.shape and scales.tobytes() == product.tobytes()
    # Hardware that flushes denormal numbers to zero would compute other scales.
    return is_equal and scales.size >= _LEAST_SCALES and bool((scales >= _SMALLEST).all())


def _multiply_constants(index: GraphIndex, names: Sequence[str]) -> NDArray[np.float32]:
    first, second = (index.float_constant(name) for name in names)
    return np.asarray(first * second, np.float32)
