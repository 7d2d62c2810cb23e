"""Shapes of all values, seen on made-up inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TypeProto, helper

from edgekit.errors import PassRefused, UserError, first_line
from edgekit.graphs.instrument import Additions, open_instrumented

Values = dict[str, NDArray[np.generic]]
# Free sizes to try, the first that the model runs with; convolutions shrink what they read.
_FREE = (16, 64, 224, 7, 1)
_FEW = 64


def seen(
    proto: ModelProto, shapes: Mapping[str, tuple[int, ...]] | None
) -> tuple[dict[str, tuple[int, ...]], Values]:
    """Shape of every value of the main graph, and what the small integer ones hold.

    Args:
        proto: the model; not changed.
        shapes: of the inputs, where they are known.

    Raises:
        PassRefused: the model runs on no made-up input.
    """
    made = [name for node in proto.graph.node for name in node.output if name]
    try:
        session = open_instrumented(proto, Additions(outputs=made))
    except UserError as error:
        raise PassRefused(f"{error.message}, so that nothing can be cut out") from error
    failed = ""
    for free in _FREE:
        feeds = _feeds(proto, shapes or {}, free)
        try:
            values = dict(zip(made, _run(session, made, feeds), strict=True))
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
            failed = first_line(error)
            continue
        return _facts(values | feeds)
    raise PassRefused(f"the model runs on no made-up input: {failed}")


def _run(session: ort.InferenceSession, names: list[str], feeds: Values) -> list[object]:
    found: list[object] = session.run(names, feeds)
    return found


def _facts(values: Values) -> tuple[dict[str, tuple[int, ...]], Values]:
    sizes = {k: tuple(v.shape) for k, v in values.items() if isinstance(v, np.ndarray)}
    known = {
        k: v
        for k, v in values.items()
        if isinstance(v, np.ndarray) and v.dtype.kind in "iu" and v.size <= _FEW
    }
    return sizes, known


def _feeds(proto: ModelProto, shapes: Mapping[str, tuple[int, ...]], free: int) -> Values:
    stored = {tensor.name for tensor in proto.graph.initializer}
    rng = np.random.default_rng(0)
    found: Values = {}
    for value in proto.graph.input:
        if value.name in stored:
            continue
        size = shapes.get(value.name) or _size(value.type, free)
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        random = np.dtype(kind).kind == "f"
        found[value.name] = (rng.random(size) if random else np.zeros(size)).astype(kind)
    return found


def _size(kind: TypeProto, free: int) -> tuple[int, ...]:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else (1 if axis == 0 else free)
        for axis, dim in enumerate(kind.tensor_type.shape.dim)
    )
