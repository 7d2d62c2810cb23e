"""Dynamic int8 quantization: integer MatMul, Gemm and LSTM, and 8-bit embeddings."""

from __future__ import annotations

from pathlib import Path

from onnx import NodeProto

from edgekit.compression.layers.skip_reasons import (
    WEIGHT_OPS,
    explain_no_weights,
    find_large_float_weights,
    find_remaining_floats,
    join_reasons,
)
from edgekit.compression.pass_input import open_source
from edgekit.compression.pass_specs import Work
from edgekit.compression.quantization.affine import LARGEST
from edgekit.compression.quantization.dynamic_products import make_products_dynamic
from edgekit.compression.quantization.embeddings import quantize_embeddings
from edgekit.compression.quantization.integer_kernels import widen_and_note_float_layers
from edgekit.compression.quantization.lstm_trials import quantize_layers
from edgekit.compression.quantization.weight_bits import choose_and_note_bits
from edgekit.compression.quantization.weight_storage import LEAST_STORED, store_in_8_bits
from edgekit.errors import PassRefused
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import save
from edgekit.onnx_graph.rewrites.minify import compact, share_transposed
from edgekit.pass_settings import QuantizeDynamic

# This pass leaves convolutions in float.
_LEFT = {"Conv": "quantize-dynamic does not quantize convolutions; quantize-static does"}


def quantize_dynamic(model: Model, settings: QuantizeDynamic, work: Work) -> Path:
    """Replace MatMul, Gemm and LSTM by integer operators, and embeddings by int8 tables.

    Activations get one scale for the whole tensor at run time. Weights are signed, symmetric and
    per output channel. An embedding has a scale per row, which is gathered along with the row.
    Inner graphs (If, Loop, Scan) are quantized alike. Weights of other kinds (GRU, transposed
    convolution) are stored as int8.

    Raises:
        PassRefused: nothing to quantize, or quantized already.
    """
    source = open_source(model, work, folded=True)
    proto = source.proto
    floats = find_large_float_weights(proto)
    largest = LARGEST[choose_and_note_bits(settings, work)]
    found = quantize_embeddings(proto, largest)
    found += quantize_layers(proto, largest, model, work)
    found += make_products_dynamic(proto, largest)
    found += store_in_8_bits(proto, _is_plain_convolution)
    if not found:
        reason = explain_no_weights(
            proto, ops=WEIGHT_OPS - {"Conv"}, least=LEAST_STORED, anywhere=True
        )
        has_convolution = any(node.op_type == "Conv" for node in proto.graph.node)
        raise PassRefused(
            f"nothing to quantize: {reason}",
            hint="quantize-static also quantizes convolutions" if has_convolution else "",
        )
    noted = widen_and_note_float_layers(proto, work, known=_LEFT)
    if left := find_remaining_floats(proto, floats, noted):
        work.note(f"weights stay float: {join_reasons(left)}")
    share_transposed(proto)
    source.restore(proto)
    compact(proto)
    target = work.scratch / "dynamic.onnx"
    save(proto, target)
    return target


def _is_plain_convolution(index: GraphIndex, node: NodeProto) -> bool:
    """Return whether the node is a Conv of the main graph, which the static pass quantizes."""
    return node.op_type == "Conv" and index.main is index
