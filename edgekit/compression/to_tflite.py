"""Pass that converts an ONNX graph to a .tflite file."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, NodeProto

from edgekit.compression.checks.conversion_growth import check_integers, note_size, note_time
from edgekit.compression.fixed_sizes import describe_fixed_sizes, infer_sums
from edgekit.compression.pass_input import note_fixed_inputs
from edgekit.compression.pass_specs import Work
from edgekit.conversion.model_facts import read_storage_stats
from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.data.input_settings import Feeding
from edgekit.errors import PassRefused, UserError
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import is_large, load, load_structure
from edgekit.onnx_graph.operators import PRODUCT_OPS
from edgekit.onnx_graph.rewrites.constant_inputs import fix_inputs
from edgekit.onnx_graph.rewrites.half_precision import compute_in_float32, stores_half
from edgekit.onnx_graph.runs.accepted_sizes import refuse_bad_sizes
from edgekit.pass_settings import Precision, ToTflite
from edgekit_agent.files import write_atomic

# Element type of weights by precision; ``same`` keeps types, ``dynamic`` refuses by itself.
_STORED: dict[Precision, str] = {"float16": "float16", "int16x8": "int8"}


def to_tflite(model: Model, settings: ToTflite, work: Work) -> Path:
    """Convert the graph for LiteRT, with the batch and every other size fixed.

    Raises:
        PassRefused: a free dimension has no size, an operator has no counterpart, or the weights
            are larger than one file can hold, or too small to be stored in fewer bits.
    """
    if is_large(load_structure(model.path)):
        raise PassRefused("the model is larger than 2 GiB, the limit of a .tflite file")
    dims = infer_sums(model, dict(settings.dims))
    _check_sizes(model, dims, work.feeding)
    proto = load(model.path)
    precision = settings.precision
    if precision == "same" and stores_half(proto):
        precision = "float16"
    compute_in_float32(proto)
    target = work.scratch / "model.tflite"
    try:
        with refuse_bad_sizes(model, dims):
            made = _emit(proto, dims, precision, settings, work)
    except UserError as error:  # a type or size that .tflite does not support: the search continues
        raise PassRefused(error.message, hint=error.hint) from error
    write_atomic(str(target), made)
    _check_stored(target, settings.precision)
    check_integers(model, target)
    note_size(model, target, work)
    note_time(model, target, work)
    if precision == "same":
        _note_float_layers(load(model.path), work)
    for note in describe_fixed_sizes(model, dims, work.feeding):
        work.note(note)
    return target


def _emit(
    proto: ModelProto, dims: dict[str, int], precision: Precision, settings: ToTflite, work: Work
) -> bytes:
    """Return the .tflite file; constant inputs are folded only where it needs them to be.

    Such an input may decide which branch of an If runs.
    """
    try:
        return convert_to_tflite(proto, dims, precision=precision, target=settings.target)
    except PassRefused:
        fixed = fix_inputs(proto, work.feeding.constants)
        if not fixed:
            raise
    made = convert_to_tflite(proto, dims, precision=precision, target=settings.target)
    note_fixed_inputs(fixed, work)
    return made


def _note_float_layers(proto: ModelProto, work: Work) -> None:
    """Note to the user how many layers of a statically quantized graph stay in float."""
    index = GraphIndex(proto)
    if all(node.op_type != "QuantizeLinear" for node in proto.graph.node):
        return
    layers = [node for node in proto.graph.node if _is_layer(index, node)]
    made = [index.producer.get(node.input[0]) for node in layers]
    floats = [node for node in made if node is None or node.op_type != "DequantizeLinear"]
    if floats:
        work.note(f"{len(floats)} of {len(layers)} layers stay in float, as in the ONNX file")


def _is_layer(index: GraphIndex, node: NodeProto) -> bool:
    """Return whether a node multiplies with a stored weight, float or integer."""
    if node.op_type not in PRODUCT_OPS:
        return False
    maker = index.producer.get(node.input[1])
    is_integer = maker is not None and maker.op_type == "DequantizeLinear"
    weight = maker.input[0] if maker is not None and is_integer else node.input[1]
    return weight in index.initializers


def _check_stored(path: Path, precision: Precision) -> None:
    """Check that the file stores weights in fewer bits; small weights stay unchanged."""
    dtype = _STORED.get(precision)
    if dtype is not None and not read_storage_stats(path).bytes_of.get(dtype):
        raise PassRefused(f"{precision}: no weights large enough to store as {dtype}")


def _check_sizes(model: Model, dims: dict[str, int], feeding: Feeding) -> None:
    for spec, _, name in feeding.iter_free_axes(model.signature):
        if name not in dims:
            # A refusal is kept for all samples, so that it does not tell their sizes.
            raise PassRefused(
                f"input {spec}: a .tflite file has fixed sizes, but neither the samples nor --dims "
                f"give {name} one size",
                hint=f"give samples of one size, --dims {name}=SIZE, or [model] dims in "
                "edgekit.toml; onnxruntime runs samples of any size",
            )
