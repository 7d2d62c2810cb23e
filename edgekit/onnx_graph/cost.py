"""Static cost of a graph: multiply-accumulates, stored weights, live activations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from edgekit.onnx_graph.einsum import parse_equation
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.io import get_opset, iter_graphs, iter_tensors
from edgekit.onnx_graph.operators import get_operator_name
from edgekit.onnx_graph.rewrites.bias_scales import restores_bias
from edgekit.onnx_graph.shape_inference import copy_with_shapes, itemsize, read_shapes

Shapes = Mapping[str, tuple[int, ...]]

# Bits of the types of which several elements share a byte.
_BITS = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4}
_BITS |= {TensorProto.INT2: 2, TensorProto.UINT2: 2}
_WEIGHTS = {
    *_BITS,
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Static cost of a graph for one set of input sizes.

    ``macs`` counts Conv, ConvTranspose, Gemm, MatMul and Einsum. ``unknown`` names the nodes of
    these types whose shapes could not be inferred, or that are inside If, Loop or Scan; ``macs`` is
    a lower bound if there are any. ``peak_activation_bytes`` is the largest sum of values alive at
    once in the order of the file, with constants folded; biases of integer kernels do not count.
    """

    ops: dict[str, int]
    opset: int | None  # None for .tflite, which has none
    parameters: int
    weight_bytes: int
    macs: int
    unknown: tuple[str, ...]
    peak_activation_bytes: int | None


def compute_cost(proto: ModelProto, dims: Mapping[str, int]) -> Cost:
    """Compute the static cost of a graph.

    Args:
        proto: the model, external data loaded.
        dims: sizes of free dimensions by name; others count as 1.
    """
    shaped = copy_with_shapes(proto, dims)
    index = GraphIndex(shaped)
    shapes, sizes = read_shapes(shaped)
    macs, unknown = 0, []
    for node in shaped.graph.node:
        if node.op_type not in _MACS:
            continue
        counted = count_node_macs(node, shapes)
        macs += counted or 0
        if counted is None:
            unknown.append(node.name or node.output[0])
    inner = (graph for graph in iter_graphs(shaped.graph) if graph is not shaped.graph)
    unknown += [n.name or n.output[0] for g in inner for n in g.node if n.op_type in _MACS]
    return Cost(
        ops=count_ops(proto),
        opset=get_opset(proto),
        parameters=_count_parameters(proto),
        weight_bytes=_count_weight_bytes(proto),
        macs=macs,
        unknown=tuple(unknown),
        peak_activation_bytes=_compute_peak_bytes(index, sizes),
    )


def count_node_macs(node: NodeProto, shapes: Shapes) -> int | None:
    """Count the multiply-accumulates of a node.

    Args:
        node: the node. Only Conv, ConvTranspose, Gemm, MatMul, Einsum, ConvInteger, MatMulInteger
            and QLinearMatMul have any.
        shapes: of all values, by name.

    Returns:
        The number; ``None`` if the shapes are not known.
    """
    return _MACS[node.op_type](node, shapes) if node.op_type in _MACS else 0


def count_ops(proto: ModelProto) -> dict[str, int]:
    """Count the nodes by operator, inner graphs included; ``domain:Op`` outside the ONNX domain."""
    names = (get_operator_name(node) for g in iter_graphs(proto.graph) for node in g.node)
    return dict(sorted(Counter(names).items()))


def _count_parameters(proto: ModelProto) -> int:
    """Count the stored float and integer weights of all initializers and Constant nodes."""
    count = 0
    for graph in iter_graphs(proto.graph):
        attributes = [
            a for node in graph.node if node.op_type == "Constant" for a in node.attribute
        ]
        sparse = [
            *graph.sparse_initializer,
            *(a.sparse_tensor for a in attributes if _is_sparse(a)),
        ]
        tensors = (
            *graph.initializer,
            *(a.t for a in attributes),
            *(sparse_tensor.values for sparse_tensor in sparse),
        )
        count += sum(math.prod(t.dims) for t in tensors if _is_weight(t))
        count += sum(len(a.floats) for a in attributes)
    return count


def _count_weight_bytes(proto: ModelProto) -> int:
    count = sum(map(_count_tensor_bytes, iter_tensors(proto.graph)))
    for graph in iter_graphs(proto.graph):
        attributes = [a for node in graph.node for a in node.attribute]
        sparse = [
            *graph.sparse_initializer,
            *(a.sparse_tensor for a in attributes if _is_sparse(a)),
        ]
        count += sum(
            _count_tensor_bytes(t)
            for sparse_tensor in sparse
            for t in (sparse_tensor.values, sparse_tensor.indices)
        )
        count += 4 * sum(len(a.floats) for a in attributes if a.name == "value_floats")
    return count


def _is_sparse(attribute: AttributeProto) -> bool:
    return bool(attribute.type == AttributeProto.SPARSE_TENSOR)


def _is_weight(tensor: TensorProto) -> bool:
    return tensor.data_type in _WEIGHTS


def _count_tensor_bytes(tensor: TensorProto) -> int:
    if tensor.raw_data:
        return len(tensor.raw_data)
    bits = _BITS.get(tensor.data_type, 8 * itemsize(tensor.data_type))
    return -(-int(math.prod(tensor.dims)) * bits // 8)


def _compute_peak_bytes(index: GraphIndex, sizes: Mapping[str, int]) -> int | None:
    """Return the peak of live bytes over the nodes in file order; ``None`` if one is unknown."""
    nodes = [node for node in index.graph.node if not restores_bias(index, node)]
    last = {name: i for i, node in enumerate(nodes) for name in node.input}
    last |= dict.fromkeys(index.outputs | index.inner_reads, len(nodes))
    alive = {v.name for v in index.graph.input if v.name not in index.initializers}
    if not alive <= sizes.keys():
        return None
    live_bytes, peak = sum(sizes[name] for name in alive), 0
    for i, node in enumerate(nodes):
        new_values = {name for name in node.output if name} - alive
        if not new_values <= sizes.keys():
            return None
        alive |= new_values
        live_bytes += sum(sizes[name] for name in new_values)
        peak = max(peak, live_bytes)
        touched = {*node.input, *node.output} if i else set(alive)
        ended = {name for name in touched & alive if last.get(name, i) <= i}
        alive -= ended
        live_bytes -= sum(sizes[name] for name in ended)
    return peak


def _count_conv_macs(node: NodeProto, shapes: Shapes) -> int | None:
    weight, out = shapes.get(node.input[1]), shapes.get(node.output[0])
    if weight is None or out is None:
        return None
    return math.prod(out) * math.prod(weight[1:])


def _count_conv_transpose_macs(node: NodeProto, shapes: Shapes) -> int | None:
    weight, source = shapes.get(node.input[1]), shapes.get(node.input[0])
    if weight is None or source is None:
        return None
    return math.prod(source) * math.prod(weight[1:])


def _count_gemm_macs(node: NodeProto, shapes: Shapes) -> int | None:
    left, out = shapes.get(node.input[0]), shapes.get(node.output[0])
    if left is None or out is None:
        return None
    inner = left[0] if read_attribute(node, "transA", 0) else left[1]
    return math.prod(out) * int(inner)


def _count_matmul_macs(node: NodeProto, shapes: Shapes) -> int | None:
    left, out = shapes.get(node.input[0]), shapes.get(node.output[0])
    if left is None or out is None:
        return None
    return math.prod(out) * left[-1]


def _count_einsum_macs(node: NodeProto, shapes: Shapes) -> int | None:
    """Multiply the sizes of all letters, for any number of factors."""
    if any(name not in shapes for name in (*node.input, *node.output)):
        return None
    terms = parse_equation(node, [len(shapes[name]) for name in node.input])
    if terms is None:
        return None
    sizes = {
        letter: n
        for name, term in zip(node.input, terms[0], strict=True)
        for letter, n in zip(term, shapes[name], strict=True)
    }
    return math.prod(sizes.values())


_MACS = {
    "Conv": _count_conv_macs,
    "ConvTranspose": _count_conv_transpose_macs,
    "Gemm": _count_gemm_macs,
    "MatMul": _count_matmul_macs,
}
_MACS["Einsum"] = _count_einsum_macs
_MACS |= {
    "ConvInteger": _count_conv_macs,
    "MatMulInteger": _count_matmul_macs,
    "QLinearMatMul": _count_matmul_macs,
}
