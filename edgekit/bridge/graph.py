"""A TFLite graph as plain data: the shape in which the bridge holds every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantization:
    """How stored integers stand for real numbers: ``real = scale * (stored - zero_point)``.

    Args:
        scales: float32, one value, or one for each index of ``axis``.
        zero_points: int64, as many as scales.
        axis: of per-channel parameters; 0 where there is one scale.

    Source: TensorFlow Lite 8-bit quantization specification.
    """

    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int = 0


@dataclass(kw_only=True, eq=False)
class Tensor:
    """A value of the graph, known by identity.

    Args:
        name: for people; need not be unique.
        dtype: numpy's name; ``int4`` is stored as int8 in ``data``.
        shape: sizes in storage order; -1 where only the run tells.
        data: the value of a constant, ``None`` where it is fed or computed.
        quantization: of integers that stand for reals.
        source: the ONNX initialiser whose value and layout this constant has, if any.
    """

    name: str
    dtype: str
    shape: Shape
    data: Array | None = None
    quantization: Quantization | None = None
    source: str | None = None
    is_variable: bool = False

    @property
    def is_constant(self) -> bool:
        """Whether the value is stored in the file."""
        return self.data is not None


@dataclass(kw_only=True, eq=False)
class Op:
    """One operator.

    Args:
        kind: as the schema's ``BuiltinOperator`` says it (``CONV_2D``); ``CUSTOM:name`` else.
        inputs: ``None`` where an optional one is left out.
        options: by the schema's names in snake case; paddings, activations and types by their
            names (``SAME``, ``RELU``, ``float32``). What is absent has the schema's default.
        origin: the ONNX node it came from, for messages.
    """

    kind: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    origin: str = ""


@dataclass(kw_only=True, eq=False)
class LiteGraph:
    """Operators in the order in which they run, with inputs and outputs by signature name.

    Args:
        inner: graphs that WHILE and IF refer to; index 1 and up in the file.
    """

    ops: list[Op]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    inner: list[LiteGraph] = field(default_factory=list)

    def producers(self) -> dict[int, Op]:
        """The operator that makes each computed tensor, by ``id`` of the tensor."""
        return {id(t): op for op in self.ops for t in op.outputs}

    def readers(self) -> dict[int, list[Op]]:
        """The operators that read each tensor, by ``id``; once for each operator."""
        found: dict[int, list[Op]] = {}
        for op in self.ops:
            for tensor in {id(t): t for t in op.inputs if t is not None}.values():
                found.setdefault(id(tensor), []).append(op)
        return found

    def substitute(self, replaced: Mapping[int, Tensor]) -> None:
        """Let whoever reads a tensor, graph outputs included, read another one instead.

        Args:
            replaced: the new tensor by ``id`` of the old one; chains are followed.
        """
        for op in self.ops:
            op.inputs = [None if t is None else _last(replaced, t) for t in op.inputs]
        self.outputs = {name: _last(replaced, t) for name, t in self.outputs.items()}

    def drop_unread(self) -> None:
        """Remove operators none of whose results is read."""
        needed = {id(t) for t in self.outputs.values()}
        kept: list[Op] = []
        for op in reversed(self.ops):
            if any(id(t) in needed for t in op.outputs):
                kept.append(op)
                needed |= {id(t) for t in op.inputs if t is not None}
        self.ops = kept[::-1]


def _last(replaced: Mapping[int, Tensor], tensor: Tensor) -> Tensor:
    while id(tensor) in replaced:
        tensor = replaced[id(tensor)]
    return tensor


def constant(name: str, data: Array, *, quantization: Quantization | None = None) -> Tensor:
    """A stored tensor of an array's type and shape."""
    return Tensor(
        name=name,
        dtype=data.dtype.name,
        shape=tuple(data.shape),
        data=np.ascontiguousarray(data).reshape(data.shape),
        quantization=quantization,
    )


def kinds(ops: Sequence[Op]) -> dict[str, int]:
    """How many operators there are of each kind."""
    counts: dict[str, int] = {}
    for op in ops:
        counts[op.kind] = counts.get(op.kind, 0) + 1
    return counts
