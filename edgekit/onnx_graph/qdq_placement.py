"""Placement of QuantizeLinear and DequantizeLinear, so that the runtime uses 8-bit kernels.

The rules follow the fusions of onnxruntime. An operator with a weight between dequantized inputs
and a quantized output becomes one integer kernel. An activation function before the quantized
output is absorbed by its range. Data movement keeps the parameters of its input.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import NodeProto, TensorProto

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.operators import is_standard
from edgekit.onnx_graph.rewrites.tensor_products import Contraction, describe_contraction

# Integer kernels exist for these; they pay off only between values that are 8-bit anyway.
_FOLLOW = {"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"}
# Data movement: the output has the parameters of the input.
_MOVE = {
    "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice",
    "DepthToSpace", "SpaceToDepth", "Identity", "Gather", "Expand", "Split",
}  # fmt: skip
# No integer kernels. Between 8-bit values their output becomes 8-bit as well, if it is read by an
# integer kernel that takes nothing else.
_BRIDGE = {
    "Clip", "Elu", "Gelu", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Max", "Min", "PRelu",
    "Pad", "ReduceMean", "Relu", "Resize", "Sub", "Tanh", "Upsample",
}  # fmt: skip
_ABSORBED = {"Relu", "Clip"}


@dataclass(frozen=True, kw_only=True)
class QdqWeight:
    """Weight in weight-only QDQ: names of its int8 integers and of its scales along an axis."""

    integers: str
    scales: str
    axis: int = 1


@dataclass(frozen=True, kw_only=True)
class WeightedNode:
    """Conv, Gemm or MatMul with a stored weight; ``axis`` is the output channels' axis."""

    node: NodeProto
    weight: str
    axis: int
    bias: str | None
    qdq_weight: QdqWeight | None  # integers and scales of a weight that is quantized already
    output: str  # after the activation function that the output's range absorbs
    contraction: Contraction | None = None  # for other products (``match_product``)


@dataclass(kw_only=True)
class Placement:
    """Values that become 8-bit, in graph order.

    ``parameter_source`` maps a moved value to the value whose parameters it shares; ``in_float``
    names the first outputs of nodes that compute in float.
    """

    in_float: frozenset[str] = frozenset()
    weighted: list[WeightedNode] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    parameter_source: dict[str, str] = field(default_factory=dict)

    def root(self, name: str) -> str:
        """Return the value whose range determines the parameters of ``name``."""
        while name in self.parameter_source:
            name = self.parameter_source[name]
        return name


def plan_placement(index: GraphIndex, in_float: frozenset[str] = frozenset()) -> Placement:
    """Decide which values of the main graph become 8-bit.

    Args:
        index: of the model.
        in_float: first outputs of the nodes that compute in float.
    """
    placement = Placement(in_float=in_float)
    followers: dict[str, NodeProto] = {}
    eight_bit: dict[str, None] = {}
    for node in index.graph.node:
        if not is_standard(node) or node.output[0] in in_float:
            continue
        if weighted := match_weighted_node(index, node):
            placement.weighted.append(weighted)
            eight_bit[node.input[0]] = None
            eight_bit[weighted.output] = None
        elif _is_data_movement(node) and node.input[0] in eight_bit:
            for output in node.output:
                placement.parameter_source[output] = node.input[0]
                followers[output] = node
                eight_bit[output] = None
        elif node.op_type in _FOLLOW and all(name in eight_bit for name in node.input):
            output = _find_absorbed_output(index, node.output[0])
            followers[output] = node
            eight_bit[output] = None
        elif node.op_type in _BRIDGE and _can_bridge(index, node, eight_bit):
            eight_bit[node.output[0]] = None
    needed_values = _find_needed_values(index, placement, followers)
    placement.values = [name for name in eight_bit if name in needed_values]
    placement.parameter_source = {
        k: v for k, v in placement.parameter_source.items() if k in needed_values
    }
    return placement


def match_weighted_node(index: GraphIndex, node: NodeProto) -> WeightedNode | None:
    """Describe a Conv, Gemm or MatMul with a finite float32 or int8 QDQ weight; else ``None``."""
    if not is_standard(node) or len(node.input) < 2:
        return None
    qdq_weight = _match_qdq_weight(index, node.input[1])
    weight = qdq_weight.integers if qdq_weight else node.input[1]
    if qdq_weight is None and not _is_float(index, weight):
        return None
    axis = find_channel_axis(index, node, len(index.initializers[weight].dims))
    if axis is None or not index.is_finite(weight):
        return None
    if qdq_weight and qdq_weight.axis != axis:
        return None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    channels = index.initializers[weight].dims[axis]
    if bias is not None and not (_is_float(index, bias, (channels,)) and index.is_finite(bias)):
        return None
    output = _find_absorbed_output(index, node.output[0])
    return WeightedNode(
        node=node, weight=weight, axis=axis, bias=bias, qdq_weight=qdq_weight, output=output
    )


def match_product(index: GraphIndex, node: NodeProto) -> WeightedNode | None:
    """Describe a node that multiplies its input by a stored weight; ``None`` for other nodes.

    In addition to ``match_weighted_node``: ConvTranspose, MatMul with a weight of more axes or on
    the left, Einsum of two factors, and the input weights of LSTM, GRU and RNN.
    """
    weighted = match_weighted_node(index, node)
    if weighted is not None:
        return weighted
    if node.op_type == "ConvTranspose" and is_standard(node):
        return _match_conv_transpose(index, node)
    contraction = describe_contraction(index, node)
    if contraction is None:
        return None
    weight = node.input[contraction.weight_position]
    if not _is_float(index, weight) or not index.is_finite(weight):
        return None
    return WeightedNode(
        node=node,
        weight=weight,
        axis=contraction.outputs[0],
        bias=None,
        qdq_weight=None,
        output=node.output[0],
        contraction=contraction,
    )


def _match_conv_transpose(index: GraphIndex, node: NodeProto) -> WeightedNode | None:
    weight = node.input[1]
    if node.input[0] in index.initializers or not _is_float(index, weight):
        return None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    stored = [weight, *([bias] if bias else [])]
    if not all(_is_float(index, name) and index.is_finite(name) for name in stored):
        return None
    return WeightedNode(
        node=node, weight=weight, axis=1, bias=bias, qdq_weight=None, output=node.output[0]
    )


def is_embedding_table(index: GraphIndex, name: str) -> bool:
    """Return whether a constant is an embedding table: gathered by rows, and else read by products.

    The output layer of a language model often is its embedding table, transposed or not.
    """
    readers = index.readers.get(name, [])
    rows = [node for node in readers if is_row_gather(node) and node.input[0] == name]
    return bool(rows) and all(
        is_row_gather(node) or match_weighted_node(index, node) or is_factor_transpose(index, node)
        for node in readers
    )


def is_row_gather(node: NodeProto) -> bool:
    """Return whether a node is a Gather of rows, as from an embedding table."""
    return node.op_type == "Gather" and read_attribute(node, "axis", 0) == 0


def is_factor_transpose(index: GraphIndex, node: NodeProto) -> bool:
    """Return whether a node transposes the second factor of a MatMul and has no other reader."""
    if node.op_type != "Transpose":
        return False
    reader = index.only_reader(node.output[0])
    return reader is not None and reader.op_type == "MatMul" and reader.input[1] == node.output[0]


def _match_qdq_weight(index: GraphIndex, name: str) -> QdqWeight | None:
    """Describe the int8 constant and channel scales of a DequantizeLinear; else ``None``."""
    node = index.producer.get(name) or index.main.producer.get(name)
    if node is None or node.op_type != "DequantizeLinear" or len(node.input) != 2:
        return None
    integers, scales = (index.initializers.get(input_name) for input_name in node.input)
    if integers is None or integers.data_type != TensorProto.INT8:
        return None
    if scales is None or len(scales.dims) != 1:
        return None
    axis = read_attribute(node, "axis", 1)
    return QdqWeight(integers=node.input[0], scales=node.input[1], axis=int(str(axis)))


def find_channel_axis(index: GraphIndex, node: NodeProto, rank: int) -> int | None:
    """Return the axis of the output channels in the weight; ``None`` without an integer kernel."""
    if node.input[0] in index.initializers:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "MatMul" and rank == 2:
        return 1
    if node.op_type == "Gemm" and _is_plain_gemm(node):
        return 0 if read_attribute(node, "transB", 0) else 1
    return None


def _is_plain_gemm(node: NodeProto) -> bool:
    scaled = read_attribute(node, "alpha", 1.0) != 1.0 or read_attribute(node, "beta", 1.0) != 1.0
    return not scaled and not read_attribute(node, "transA", 0)


def _is_float(index: GraphIndex, name: str, shape: tuple[int, ...] | None = None) -> bool:
    tensor = index.initializers.get(name)
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return False
    return shape is None or tuple(tensor.dims) == shape


def _is_data_movement(node: NodeProto) -> bool:
    """Return whether a node only moves the entries of its first input to each of its outputs."""
    if node.op_type == "Resize":
        return read_attribute(node, "mode", b"nearest") == b"nearest"
    if node.op_type not in _MOVE or not all(node.output):
        return False
    return len(node.output) == 1 or node.op_type == "Split"


def _can_bridge(index: GraphIndex, node: NodeProto, eight_bit: dict[str, None]) -> bool:
    """Return whether all inputs of a node are 8-bit or stored."""
    computed_inputs = [name for name in node.input if name and name not in index.initializers]
    return (
        len(node.output) == 1
        and bool(computed_inputs)
        and all(name in eight_bit for name in computed_inputs)
    )


def _find_absorbed_output(index: GraphIndex, output: str) -> str:
    """Return the output of a Relu or Clip that alone reads ``output``, else ``output``."""
    reader = index.only_reader(output)
    if reader is None or reader.op_type not in _ABSORBED:
        return output
    bounds = [index.constant(name) for name in reader.input[1:] if name]
    if any(bound is None for bound in bounds):
        return output
    absorbed: str = reader.output[0]
    return absorbed


def _find_needed_values(
    index: GraphIndex, placement: Placement, followers: dict[str, NodeProto]
) -> set[str]:
    """Return the values that integer kernels read or write, from the end of the graph backwards.

    A Conv needs a quantized output to be fused, and so do Gemm and MatMul before a Relu or Clip;
    otherwise the outputs of Gemm and MatMul may be float.
    """
    needed_values = {w.output for w in placement.weighted if w.node.op_type == "Conv"}
    for w in placement.weighted:
        reader = index.only_reader(w.node.output[0])
        if reader is not None and reader.op_type in _ABSORBED:
            needed_values.add(w.output)
    needed_values |= {w.node.input[0] for w in placement.weighted}
    for output, node in reversed(followers.items()):
        if output not in needed_values:
            continue
        if _is_data_movement(node):
            needed_values.add(node.input[0])
            needed_values.update(
                node.output
            )  # a Split is an integer kernel only where all are 8-bit
        else:
            needed_values.update(n for n in node.input if n not in index.initializers)
    return needed_values
