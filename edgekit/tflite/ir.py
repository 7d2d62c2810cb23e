"""Data classes of a TFLite graph."""

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
    """Mapping from stored integers to real values: ``real = scale * (stored - zero_point)``.

    Args:
        scales: One float32 value, or one for each index of ``axis``.
        zero_points: int64, as many as scales.
        axis: Axis of per-channel parameters; 0 where there is one scale.

    Source: TensorFlow Lite 8-bit quantization specification.
    """

    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int = 0


@dataclass(kw_only=True, eq=False)
class Tensor:
    """A value of the graph, compared by identity.

    Args:
        name: Name for people; need not be unique.
        dtype: Type by numpy's name; ``int4`` values are held as int8 in ``data``.
        shape: Sizes in storage order; -1 for a size known only at run time.
        data: Value of a constant; ``None`` for an input or a computed tensor.
        quantization: Scales of integers that represent real values.
        source: ONNX initializer with the value and layout of this constant, if there is one.
        is_variable: Whether the tensor keeps its value from run to run.
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
        """Return whether the value is stored in the file."""
        return self.data is not None


@dataclass(kw_only=True, eq=False)
class Op:
    """One operator.

    Args:
        op_type: Name in the schema's ``BuiltinOperator`` (``CONV_2D``), or ``CUSTOM:name``.
        inputs: Input tensors; ``None`` for an optional input that is left out.
        outputs: Output tensors.
        options: Options by the schema's names in snake case; paddings, activations and types by
            their names (``SAME``, ``RELU``, ``float32``). Absent options have the schema's default.
        origin: ONNX node from which the operator was made, for messages.
    """

    op_type: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    origin: str = ""


@dataclass(kw_only=True, eq=False)
class LiteGraph:
    """Operators in execution order, with inputs and outputs by signature name.

    Args:
        ops: The operators.
        inputs: Input tensors by name.
        outputs: Output tensors by name.
        inner: Subgraphs that WHILE and IF refer to; index 1 and up in the file.
    """

    ops: list[Op]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    inner: list[LiteGraph] = field(default_factory=list)

    def producers(self) -> dict[int, Op]:
        """Return the operator that computes each tensor, by ``id`` of the tensor."""
        return {id(t): op for op in self.ops for t in op.outputs}

    def readers(self) -> dict[int, list[Op]]:
        """Return the operators that read each tensor, by ``id``, each operator once."""
        readers: dict[int, list[Op]] = {}
        for op in self.ops:
            for tensor in {id(t): t for t in op.inputs if t is not None}.values():
                readers.setdefault(id(tensor), []).append(op)
        return readers

    def substitute(self, replacements: Mapping[int, Tensor]) -> None:
        """Replace tensors in all operator inputs and graph outputs.

        Args:
            replacements: New tensor by ``id`` of the old one; chains are followed.
        """
        for op in self.ops:
            op.inputs = [
                None if t is None else _follow_replacements(replacements, t) for t in op.inputs
            ]
        self.outputs = {
            name: _follow_replacements(replacements, t) for name, t in self.outputs.items()
        }

    def drop_unread(self) -> None:
        """Remove operators none of whose outputs is read."""
        needed_tensors = {id(t) for t in self.outputs.values()}
        kept_ops: list[Op] = []
        for op in reversed(self.ops):
            if any(id(t) in needed_tensors for t in op.outputs):
                kept_ops.append(op)
                needed_tensors |= {id(t) for t in op.inputs if t is not None}
        self.ops = kept_ops[::-1]


def _follow_replacements(replacements: Mapping[int, Tensor], tensor: Tensor) -> Tensor:
    while id(tensor) in replacements:
        tensor = replacements[id(tensor)]
    return tensor


def constant(name: str, data: Array, *, quantization: Quantization | None = None) -> Tensor:
    """Build a constant tensor with the type and shape of an array."""
    return Tensor(
        name=name,
        dtype=data.dtype.name,
        shape=tuple(data.shape),
        data=np.ascontiguousarray(data).reshape(data.shape),
        quantization=quantization,
    )


def count_op_types(ops: Sequence[Op]) -> dict[str, int]:
    """Count the operators of each type."""
    counts: dict[str, int] = {}
    for op in ops:
        counts[op.op_type] = counts.get(op.op_type, 0) + 1
    return counts
