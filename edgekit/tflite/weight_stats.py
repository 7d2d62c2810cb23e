"""Statistics of a .tflite file: operators, and bytes and extremes of the stored tensors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import make_missing_extra_error
from edgekit.onnx_graph.weight_stats import StorageStats

# Type names that differ between the TFLite schema and numpy.
_TYPES = {"BOOL": "bool", "INT4": "int4", "STRING": "str"}
_FLOATS = {"float16", "float32", "float64"}


def count_tflite_ops(path: Path) -> Counter[str]:
    """Count the operators of a .tflite file, inner graphs included; custom ones by their own name.

    Raises:
        UserError: LiteRT is not installed.
    """
    schema = _load_schema()
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    counts: Counter[str] = Counter()
    for graph in _iter_items(model.Subgraphs, model.SubgraphsLength()):
        for op in _iter_items(graph.Operators, graph.OperatorsLength()):
            code = model.OperatorCodes(op.OpcodeIndex())
            # Files from before 2020 fill only the old field.
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            custom_name = code.CustomCode() if number == schema.BuiltinOperator.CUSTOM else None
            counts[
                custom_name.decode(errors="replace")
                if custom_name
                else names.get(number, str(number))
            ] += 1
    return counts


def list_custom_ops(path: Path) -> tuple[str, ...]:
    """List the custom operators of a file: those that are not TFLite builtins.

    Raises:
        UserError: LiteRT is not installed.
    """
    builtin = {k for k in vars(_load_schema().BuiltinOperator) if k.isupper()}
    return tuple(sorted(count_tflite_ops(path).keys() - builtin))


def read_tflite_storage_stats(path: Path) -> StorageStats:
    """Read the storage statistics of a .tflite file.

    Raises:
        UserError: LiteRT is not installed.
    """
    data = path.read_bytes()
    bytes_of: Counter[str] = Counter()
    nans, infinities, weight_bytes = [], [], 0
    for name, dtype, dims, raw in _iter_constants(data):
        bytes_of[dtype] += len(raw)
        if dtype not in _FLOATS:
            continue
        weight_bytes += len(raw) if dims > 1 else 0
        values = raw.view(dtype)
        low, high = float(values.min()), float(values.max())
        if math.isnan(low):
            nans.append(name)
        elif math.isinf(low) or math.isinf(high):
            infinities.append(name)
    return StorageStats(
        file_bytes=len(data),
        nodes=sum(count_tflite_ops(path).values()),
        bytes_of=dict(bytes_of),
        weight_bytes=weight_bytes,
        shared_bytes=0,
        zeros=0.0,
        nan=next(iter(nans), None),
        infinite=next(iter(infinities), None),
    )


def _iter_constants(data: bytes) -> Iterator[tuple[str, str, int, NDArray[np.uint8]]]:
    """Yield name, type, rank and raw bytes of every stored tensor."""
    schema = _load_schema()
    types = {v: k for k, v in vars(schema.TensorType).items() if k.isupper()}
    model = schema.Model.GetRootAs(data, 0)
    for graph in _iter_items(model.Subgraphs, model.SubgraphsLength()):
        for tensor in _iter_items(graph.Tensors, graph.TensorsLength()):
            buffer = model.Buffers(tensor.Buffer())
            if not buffer.DataLength():
                continue
            name = types[tensor.Type()]
            dtype = _TYPES.get(name, name.lower())
            raw = np.ascontiguousarray(buffer.DataAsNumpy())
            called = (tensor.Name() or b"without a name").decode(errors="replace")
            yield called, dtype, tensor.ShapeLength(), raw


def _iter_items(get: Any, count: int) -> Iterator[Any]:  # noqa: ANN401 - the schema has no types
    return (get(i) for i in range(count))


def _load_schema() -> Any:  # noqa: ANN401 - the schema has no types
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise make_missing_extra_error("ai-edge-litert", "litert") from error
    return schema_py_generated
