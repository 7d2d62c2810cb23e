"""Reading and writing of .onnx files: complete, checked and atomic."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from edgekit.errors import UserError, first_line
from edgekit.model import Model, Signature, TensorSpec
from edgekit.onnx_graph.external_data import (
    clear_external_location,
    is_external,
    list_external_files,
    load_external,
    strip_external,
)
from edgekit.onnx_graph.free_dimensions import clear_unsized, graph_has_empty_input
from edgekit.onnx_graph.node_order import sort_nodes
from edgekit.onnx_graph.operators import STANDARD_DOMAINS
from edgekit.onnx_graph.runs.memory_release import return_freed_memory
from edgekit.onnx_graph.size_limits import refuse_too_many_nodes
from edgekit_agent.files import open_atomic, sha256_of
from edgekit_agent.limits import MOST_FOLDED_BYTES

# Protobuf cannot hold more in one message.
MAX_BYTES = (1 << 31) - 1
# Smaller tensors stay in the model file when the data are written to a second file; shape inference
# needs them.
_LEAST_OUTSIDE = 1024
_MOST_SHAPE_ENTRIES = 1024
_OTHER_FILES = {
    b"pk\x03\x04": "it is a zip archive: unpack it and give the model inside; archives of Keras "
    "and torch need the file extension .keras, .pt2 or .pt",
    b"\x1f\x8b": "it is compressed by gzip: unpack it first (gunzip)",
    b"version https://git-lfs": "it is a Git LFS pointer: get the model with 'git lfs pull'",
    b"<": "it is a web page or XML: check where it was downloaded from",
    b"{": "it is JSON text, not a model",
    b"\x89hdf": "it is an HDF5 file; Keras models need the file extension .h5",
}
_PAGE = 4096  # so that a runtime can map the data


def read_onnx(path: Path) -> Model:
    """Read an .onnx file and check that the runtime accepts it.

    Raises:
        UserError: not ONNX, cut short, external data missing or outside the folder, an opset or
            operator that the runtime does not know.
    """
    proto = load_structure(path)
    beside = find_external_files(path, proto)
    _check_opsets(path, proto)
    if beside:
        strip_external(proto, iter_tensors(proto.graph))
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise UserError(f"{path}: not a valid ONNX model: {_format_error(error)}") from error
    try:
        signature = read_signature(proto)
    except UserError as error:
        raise UserError(f"{path}: {error.message}", hint=error.hint) from error
    digest = _compute_digest(path, beside)
    del proto  # the session holds the weights once more
    try:
        open_session(path)
    except Exception as error:
        raise UserError(
            f"{path}: onnxruntime {ort.__version__} rejects the model: {_format_error(error)}",
            hint="the model may use custom operators, or types that its operators do not support",
        ) from error
    return_freed_memory()
    return Model(path=path, format="onnx", digest=digest, signature=signature, beside=tuple(beside))


def load(path: Path) -> ModelProto:
    """Parse a file and its external data into one message, which may exceed 2 GiB.

    Raises:
        UserError: as ``read_onnx``, without the checks of the graph itself.
    """
    return_freed_memory()
    proto = load_structure(path)
    for tensor in iter_tensors(proto.graph):
        if is_external(tensor):
            load_external(path, tensor)
    return proto


def load_structure(path: Path) -> ModelProto:
    """Parse a file without its external data; free the dimensions of size 0 or less.

    Nodes are sorted topologically, as ONNX requires.

    Raises:
        UserError: as ``load``, without the checks of the external data.
    """
    proto = _parse(path)
    clear_unsized(iter_graphs(proto.graph))
    for graph in iter_graphs(proto.graph):
        sort_nodes(graph, iter_inner_graphs)
    return proto


def has_empty_input(path: Path) -> bool:
    """Return whether a file gives an input dimension the size 0, so that no sample fits it."""
    return graph_has_empty_input(_parse(path).graph)


def _get_advice(path: Path) -> str:
    """Return advice on a file that is no ONNX model, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    for beginning, advice in _OTHER_FILES.items():
        if head.startswith(beginning):
            return advice
    return "compare the file size with its source"


def _parse(path: Path) -> ModelProto:
    try:
        proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise UserError(
            f"{path}: not an ONNX model, or truncated",
            hint=_get_advice(path),
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not proto.graph.output or not proto.opset_import:
        raise UserError(f"{path}: not an ONNX model, or truncated (no graph with outputs)")
    refuse_too_many_nodes(proto.graph, location=str(path))
    return proto


def load_for_shapes(path: Path) -> ModelProto:
    """Parse a file with the data that shapes can depend on.

    All data are loaded if one file could hold them, otherwise only those of small tensors.

    Raises:
        UserError: as ``load``.
    """
    proto = load_structure(path)
    if not is_large(proto):
        return load(path)
    find_external_files(path, proto)
    for tensor in iter_tensors(proto.graph):
        if is_external(tensor) and can_hold_shape(tensor):
            load_external(path, tensor)
    return proto


def can_hold_shape(tensor: TensorProto) -> bool:
    """Return whether a tensor is small enough to be an input of shape computations."""
    return bool(math.prod(tensor.dims) <= _MOST_SHAPE_ENTRIES)


def is_large(proto: ModelProto) -> bool:
    """Return whether a model with its data loaded exceeds the limit of one file."""
    # A 64th is reserved for nodes, names and shapes.
    return count_stored_bytes(proto) > MAX_BYTES - (MAX_BYTES >> 6)


def count_stored_bytes(proto: ModelProto) -> int:
    """Return the bytes of all stored tensors, from their shapes and types alone."""
    return sum(
        math.prod(t.dims) * np.dtype(helper.tensor_dtype_to_np_dtype(t.data_type)).itemsize
        for t in iter_tensors(proto.graph)
    )


def save(proto: ModelProto, path: Path) -> None:
    """Write a model atomically: as one file, or as two if it is too large for one.

    The second file has the name of the first with ``.data`` appended, and is written first. A large
    message is modified: its tensors then refer to that file.
    """
    if is_large(proto):
        _write_data(proto, path.with_name(f"{path.name}.data"))
    else:
        for tensor in iter_tensors(proto.graph):
            clear_external_location(tensor)
    with open_atomic(str(path)) as file:
        file.write(proto.SerializeToString(deterministic=True))


def _write_data(proto: ModelProto, path: Path) -> None:
    """Move the data of all but the smallest tensors into one file."""
    with open_atomic(str(path)) as file:
        for tensor in iter_tensors(proto.graph):
            if not tensor.HasField("raw_data") or len(tensor.raw_data) < _LEAST_OUTSIDE:
                continue
            offset = -(-file.tell() // _PAGE) * _PAGE
            file.seek(offset)
            file.write(tensor.raw_data)
            location = {"location": path.name, "offset": offset, "length": file.tell() - offset}
            tensor.ClearField("raw_data")
            del tensor.external_data[:]
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in location.items():
                tensor.external_data.add(key=key, value=str(value))


def make_session(
    proto: ModelProto, options: ort.SessionOptions | None = None
) -> ort.InferenceSession:
    """Open a session on a model in memory, of any size; a large message is modified by ``save``.

    Args:
        proto: the model.
        options: ``None`` = the default options, without output.
    """
    options = options or make_session_options()
    if not is_large(proto):
        return ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(proto, path)
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_session(path: Path, *, threads: int = 1) -> ort.InferenceSession:
    """Open an onnxruntime session on the CPU that prints nothing."""
    options = make_session_options()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def make_session_options() -> ort.SessionOptions:
    """Return session options of onnxruntime that suppress its output and limit constant folding."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(
        "optimization.constant_folding_max_output_size_in_bytes", str(MOST_FOLDED_BYTES)
    )
    return options


def read_signature(proto: ModelProto) -> Signature:
    """Read the inputs (without initializers) and outputs of a graph.

    Raises:
        UserError: an input or output is not a tensor, or of an unknown type.
    """
    stored = {t.name for t in proto.graph.initializer}
    inputs = [v for v in proto.graph.input if v.name not in stored]
    if not inputs:
        raise UserError("the model has no inputs")
    return Signature(
        inputs=tuple(_to_spec(v) for v in inputs),
        outputs=tuple(_to_spec(v) for v in proto.graph.output),
    )


def _to_spec(value: ValueInfoProto) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        type_name = (value.type.WhichOneof("value") or "value without a type").removesuffix("_type")
        raise UserError(f"{value.name}: a {type_name}; only tensors are supported")
    tensor = value.type.tensor_type
    if tensor.elem_type not in helper.get_all_tensor_dtypes():
        raise UserError(f"{value.name}: unknown element type {tensor.elem_type}")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    shape = tuple(
        d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim
    )
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)


def iter_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and every graph inside its nodes (If, Loop, Scan)."""
    yield graph
    for node in graph.node:
        for inner in iter_inner_graphs(node):
            yield from iter_graphs(inner)


def iter_inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that a node has as attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def iter_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every stored tensor: initializers and tensor attributes, inner graphs included."""
    for subgraph in iter_graphs(graph):
        yield from subgraph.initializer
        for node in subgraph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    yield attribute.t
                yield from attribute.tensors


def find_external_files(path: Path, proto: ModelProto) -> list[Path]:
    """List the external data files of the model in ``path``, each once.

    Raises:
        UserError: a file is missing, too short, or outside the model's folder.
    """
    return list_external_files(path, iter_tensors(proto.graph))


def _check_opsets(path: Path, proto: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    version = get_opset(proto)
    if version > newest:
        raise UserError(
            f"{path}: opset {version} is newer than the newest known here ({newest})",
            hint="export with a lower opset_version, or upgrade onnx and onnxruntime",
        )
    if not version:
        raise UserError(f"{path}: no opset version for the standard operators")


def get_opset(proto: ModelProto) -> int:
    """Return the version of the standard operator set; 0 if the file names none."""
    return next((o.version for o in proto.opset_import if o.domain in STANDARD_DOMAINS), 0)


def _compute_digest(path: Path, beside: list[Path]) -> str:
    """Return the sha256 of the file, or, with external data, of the digests of all its files."""
    file_digest = sha256_of(str(path))
    if not beside:
        return file_digest
    parts = [file_digest, *(sha256_of(str(file)) for file in beside)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _format_error(error: Exception) -> str:
    text = first_line(error)
    return text.removeprefix("[ONNXRuntimeError] : ")
