"""Storage of few-bit weights in a graph: int8 with scales, or native few-bit kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from edgekit.compression.layers.stored_layers import StoredLayer, shift_bias
from edgekit.compression.quantization.embeddings import store_embeddings
from edgekit.compression.quantization.few_bits.grids import Grid
from edgekit.onnx_graph.graph_index import GraphIndex

MICROSOFT = "com.microsoft"
# Bit widths that onnxruntime's kernels support, by the operator that reads the weight.
NATIVE_WIDTHS = {"MatMul": (2, 4, 8), "Gemm": (2, 4, 8), "Gather": (4, 8), "Conv": (4, 8)}
# Bit widths of weights without a few-bit kernel, which are widened at load.
_STORED_WIDTHS = (4, 8)
# accuracy_level of MatMulNBits: activations are quantized to 8 bits at run time.
_INT8_ACTIVATIONS = 4


@dataclass(frozen=True, kw_only=True)
class QuantizedLayer:
    """Layer with the integers that replace its weight, and their quantization grid."""

    layer: StoredLayer
    grid: Grid
    integers: NDArray[np.int8]
    width: int
    native: bool = False


def get_native_widths(layer: StoredLayer) -> tuple[int, ...]:
    """Return the bit widths in which onnxruntime can store the weight of a layer."""
    return _STORED_WIDTHS if layer.is_widened else NATIVE_WIDTHS[layer.op]


def write_int8(index: GraphIndex, made: Sequence[QuantizedLayer]) -> None:
    """Replace weights by int8 integers with a scale per channel, in place."""
    _correct_biases(index, made)
    front = [
        node for q in made if not q.layer.is_embedding for node in _dequantize_weight(index, q)
    ]
    _put_nodes(index, [*front, *index.graph.node])
    _store_tables(index, [q for q in made if q.layer.is_embedding])


def write_native(index: GraphIndex, made: Sequence[QuantizedLayer]) -> None:
    """Replace weights by the inputs of the runtime's few-bit kernels, in place.

    Source: onnxruntime contrib operators, MatMulNBits and GatherBlockQuantized; ONNX INT4.
    """
    _correct_biases(index, made)
    front: list[NodeProto] = []
    products: dict[str, QuantizedLayer] = {}
    tables: dict[str, tuple[QuantizedLayer, list[str]]] = {}
    plain: list[QuantizedLayer] = []
    for q in made:
        weighted = q.layer.weighted
        if q.layer.is_embedding and q.grid.block:
            tables[q.layer.name] = q, _store_packed(index, q)
        elif q.layer.is_embedding:
            plain.append(q)
        elif weighted is None or q.layer.is_widened or weighted.node.op_type == "Conv":
            front += _dequantize_weight(index, q)
        else:
            products[weighted.node.output[0]] = q
    nodes = list(front)
    for node in index.graph.node:
        if node.output[0] in products:
            nodes += _build_matmul_nbits(index, node, products[node.output[0]])
        elif node.op_type == "Gather" and node.input[0] in tables:
            nodes.append(_build_gather_block_quantized(node, *tables[node.input[0]]))
        else:
            nodes.append(node)
    _put_nodes(index, nodes)
    _store_tables(index, plain)
    index.drop_unread_constants()
    known = {imported.domain for imported in index.proto.opset_import}
    if (products or tables) and MICROSOFT not in known:
        index.proto.opset_import.add(domain=MICROSOFT, version=1)


def _correct_biases(index: GraphIndex, made: Sequence[QuantizedLayer]) -> None:
    for q in made:
        shift_bias(index, q.layer, q.layer.shift(q.layer.error(q.integers, q.grid)))


def _store_tables(index: GraphIndex, made: Sequence[QuantizedLayer]) -> None:
    store_embeddings(index, {q.layer.name: (q.integers[0], q.grid.scales[0, :, 0]) for q in made})


def _put_nodes(index: GraphIndex, nodes: Sequence[NodeProto]) -> None:
    del index.graph.node[:]
    index.graph.node.extend(nodes)


def _dequantize_weight(index: GraphIndex, q: QuantizedLayer) -> list[NodeProto]:
    """Store the integers of a layer, let its readers read them dequantized, and return new nodes.

    Integers are stored in 4 bits where that is the native width, else in 8. The nodes belong in
    the main graph, where inner graphs can read them as well.
    """
    add = index.add_int4 if q.native and q.width <= 4 else index.add_constant
    integers, dequantized = add("w", q.layer.tensor(q.integers)), index.fresh("d")
    readers = [(reader.node, reader.input) for reader in q.layer.readers]
    if q.layer.weighted is not None:
        place = q.layer.weighted.contraction.weight_position if q.layer.weighted.contraction else 1
        readers = [(q.layer.weighted.node, place)]
    for node, place in readers:
        node.input[place] = dequantized
    layer = q.layer.layer
    if q.layer.recurrent or (layer is not None and layer.contraction is not None):
        # One scale for each row of each direction or batch. onnxruntime folds these at load.
        spread = layer.spread(q.grid.scales) if layer else q.grid.scales
        scales, real = index.add_constant("s", spread), index.fresh("c")
        return [
            helper.make_node("Cast", [integers], [real], to=TensorProto.FLOAT),
            helper.make_node("Mul", [real, scales], [dequantized]),
        ]
    axis = layer.axis if layer else 0
    names = [integers, index.add_constant("s", q.grid.scales.ravel())]
    return [helper.make_node("DequantizeLinear", names, [dequantized], axis=axis)]


def _store_packed(index: GraphIndex, q: QuantizedLayer) -> list[str]:
    """Store packed integers [O, B, bytes] (a table: [O, bytes]) and scales; return their names."""
    outputs, inputs = q.integers.shape[1:]
    filled = np.pad(q.integers[0], [(0, 0), (0, -inputs % q.grid.block)])
    packed = _pack_bits(filled, q.width)
    if not q.layer.is_embedding:
        packed = packed.reshape(outputs, -1, q.grid.block * q.width // 8)
    return [index.add_constant("w", packed), index.add_constant("s", q.grid.scales[0])]


def _pack_bits(integers: NDArray[np.int8], width: int) -> NDArray[np.uint8]:
    """Pack integers as unsigned ones of 2, 4 or 8 bits, several in a byte, the first one lowest."""
    unsigned = (integers.astype(np.int16) + (1 << (width - 1))).astype(np.uint8)
    parts = unsigned.reshape(unsigned.shape[0], -1, 8 // width)
    shifts = (np.arange(8 // width) * width).astype(np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(parts << shifts, axis=-1)
    return packed


def _build_matmul_nbits(index: GraphIndex, node: NodeProto, q: QuantizedLayer) -> list[NodeProto]:
    outputs, inputs = q.integers.shape[1:]
    bias = node.input[2] if len(node.input) > 2 else ""  # of a Gemm
    product = index.fresh("p") if bias else node.output[0]
    made = [
        helper.make_node(
            "MatMulNBits", [node.input[0], *_store_packed(index, q)], [product], domain=MICROSOFT,
            K=inputs, N=outputs, bits=q.width, block_size=q.grid.block,
            accuracy_level=_INT8_ACTIVATIONS,
        )
    ]  # fmt: skip
    if bias:
        made.append(helper.make_node("Add", [product, bias], [node.output[0]]))
    return made


def _build_gather_block_quantized(
    node: NodeProto, q: QuantizedLayer, stored: list[str]
) -> NodeProto:
    rows, scales = stored
    return helper.make_node(
        "GatherBlockQuantized", [rows, node.input[1], scales], [node.output[0]], domain=MICROSOFT,
        bits=q.width, block_size=q.grid.block, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
