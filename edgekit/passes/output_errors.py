"""Squared errors of a model's outputs, sample by sample, each part relative to its own size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.instrument import Additions, open_offloaded
from edgekit.graphs.observe import Run, feed, input_tensors
from edgekit.graphs.onnx_file import open_session
from edgekit_agent.records import Samples

Floats64 = NDArray[np.float64]

_SATURATE = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh"}
# Operators that hand on the entries of their first input as they are.
_MOVE = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
# Operators that only shift and stretch where the other operand is stored.
_SCALE = {"Add", "Sub", "Mul", "Div"}
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# A part whose entries are all zeros says nothing.
_NOTHING = 1e-30
# One-sided 95 % quantile of the normal distribution.
_SURE = 1.645
# Least part of the error that a refinement must take away.
_WORTH = 0.02


def judged_parts(proto: ModelProto) -> list[str]:
    """Values that tell of an error best: what the outputs are put together from.

    The walk goes back through data movement, concatenation and constant factors, so that a part
    of small scale counts beside a large one, and through a final Softmax or Sigmoid, where a few
    samples near a border would decide alone. Pairs of Quantize and Dequantize are transparent,
    so an 8-bit version has the same parts in the same order.
    """
    parts = _Parts(proto)
    for output in proto.graph.output:
        if output.name not in parts.known:
            parts.walk(output.name, output.name)
    return parts.found


def output_values(proto: ModelProto) -> set[str]:
    """The outputs, and the values whose entries they hold, moved, joined or scaled.

    What a Softmax or Sigmoid makes of a value does not count: there the far ends of a range say
    little.
    """
    parts = _Parts(proto, through=_MOVE)
    for output in proto.graph.output:
        parts.walk(output.name, output.name)
    return parts.passed


class _Parts:
    def __init__(self, proto: ModelProto, *, through: set[str] = _MOVE | _SATURATE) -> None:
        self.through = through
        self.passed: set[str] = set()
        self.known = {tensor.name for tensor in proto.graph.initializer}
        self.known |= {value.name for value in proto.graph.input}
        self.producer = {name: node for node in proto.graph.node for name in node.output}
        self.found: list[str] = []

    def walk(self, value: str, output: str) -> None:
        """Add the parts of a value; an output that is no more than an input stays whole."""
        before = len(self.found)
        self._walk(value)
        if len(self.found) == before:
            self.found.append(output)

    def _walk(self, value: str) -> None:
        if self._is_given(value):
            return
        self.passed.add(value)
        node = self.producer[self._before_8_bits(value)]
        inputs = self._operands(node)
        if inputs is None or node.domain not in ("", "ai.onnx"):
            self.found.append(value)
            return
        for name in inputs:
            self._walk(name)

    def _operands(self, node: NodeProto) -> list[str] | None:
        """The inputs that the parts come from; ``None`` where the walk ends."""
        if node.op_type in self.through:
            return [node.input[0]]
        if node.op_type == "Concat":
            return list(node.input)
        if node.op_type in _SCALE:
            stored = [self._is_stored(name) for name in node.input]
            if sum(stored) == 1 and not self._is_bias(node.input[stored.index(False)]):
                return [node.input[stored.index(False)]]
        return None

    def _is_bias(self, value: str) -> bool:
        """Whether what is added to a value may be the bias of the layer that makes it."""
        node = self.producer.get(self._before_8_bits(value))
        return node is not None and node.op_type in _LAYERS

    def _is_given(self, value: str) -> bool:
        return value in self.known or self._before_8_bits(value) not in self.producer

    def _is_stored(self, value: str) -> bool:
        node = self.producer.get(value)
        if node is not None and node.op_type == "DequantizeLinear":
            value = node.input[0]
            node = self.producer.get(value)
        return (node is None and value in self.known) or (
            node is not None and node.op_type == "Constant"
        )

    def _before_8_bits(self, value: str) -> str:
        """The float value that a Dequantize of a Quantize stands for, else itself."""
        node = self.producer.get(value)
        if node is None or node.op_type != "DequantizeLinear":
            return value
        quantize = self.producer.get(node.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear":
            return value
        source: str = quantize.input[0]
        return source


@dataclass(frozen=True, kw_only=True)
class OutputErrors:
    """Squared errors and squared sizes ``[samples, parts]`` of a version of a model."""

    error: Floats64
    size: Floats64

    @property
    def total(self) -> float:
        """The mean over the parts of squared error over squared size."""
        return float(self.by_sample.mean())

    @property
    def by_sample(self) -> Floats64:
        """The error of each sample, relative to the mean size of each part."""
        size = self.size.mean(axis=0)
        said = size > _NOTHING
        if not said.any() or not len(size):
            return np.zeros(len(self.error))
        relative: Floats64 = (self.error[:, said] / size[said]).mean(axis=1)
        return relative

    def beats(self, other: OutputErrors, *, by: float = _WORTH) -> bool:
        """Whether the error is lower than another's by more than its noise, sample by sample.

        The mean logarithm of the ratio must be negative by its one-sided 95 % bound, and the
        total lower by the part ``by``.
        """
        mine, theirs = self.by_sample, other.by_sample
        if not self.total < (1 - by) * other.total:
            return False
        floor = max(float(theirs.mean()) * 1e-9, _NOTHING)
        ratios = np.log(np.maximum(mine, floor)) - np.log(np.maximum(theirs, floor))
        if len(ratios) < 2:
            return True
        noise = float(ratios.std(ddof=1)) / math.sqrt(len(ratios))
        return bool(ratios.mean() + _SURE * noise < 0)


def joined(errors: Sequence[OutputErrors]) -> OutputErrors:
    """The errors of several sets of samples as one."""
    return OutputErrors(
        error=np.concatenate([each.error for each in errors]),
        size=np.concatenate([each.size for each in errors]),
    )


def output_errors(
    index: GraphIndex, path: Path, judged: Sequence[str], parts: Sequence[Samples]
) -> OutputErrors:
    """The errors of a file's outputs against those of the model.

    Args:
        index: of the model in float.
        path: its 8-bit version, run as a user would run it.
        judged: values of the file; in the order of ``judged_parts`` of the model.
        parts: the samples to judge on.
    """
    expected = judged_parts(index.proto)
    session = open_offloaded(index, Additions(outputs=list(dict.fromkeys(expected))))
    tensors = input_tensors(index.proto)
    rows = [
        [squared(before[o], after[n]) for o, n in zip(expected, judged, strict=True)]
        for before, after in zip(
            _ran(feed(session, tensors, parts), expected),
            _ran(feed(open_session(path), tensors, parts), judged),
            strict=True,
        )
    ]
    table = np.array(rows, np.float64).reshape(len(rows), -1, 2)
    return OutputErrors(error=table[..., 0], size=table[..., 1])


def _ran(
    fed: Iterator[tuple[object, Run]], wanted: Sequence[str]
) -> Iterator[dict[str, NDArray[np.generic]]]:
    names = list(dict.fromkeys(wanted))
    for _, run in fed:
        yield run(names, {})


def squared(old: NDArray[np.generic], new: NDArray[np.generic]) -> tuple[float, float]:
    """Squared error and squared size over the finite entries of a float value; else nothing."""
    if old.dtype.kind != "f" or old.shape != new.shape:
        return 0.0, 0.0
    before = old.astype(np.float64)
    finite = np.isfinite(before)
    error = np.square(new.astype(np.float64) - before)[finite].sum()
    return float(error), float(np.square(before[finite]).sum())
