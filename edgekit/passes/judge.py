"""Which of several ranges of a value makes the least error, on samples held back for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.instrument import Additions, open_offloaded
from edgekit.graphs.observe import feed, input_tensors
from edgekit.graphs.onnx_file import open_session
from edgekit.graphs.placement import Placement
from edgekit.passes.affine import Affine
from edgekit.passes.shadows import Shadows
from edgekit_agent.records import Samples

# A reader whose output is all zeros says nothing.
_NOTHING = 1e-30

_SATURATE = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh"}

# Of one value the parameters that each candidate would give it.
Candidates = Mapping[str, Mapping[str, Affine]]


@dataclass(kw_only=True)
class Errors:
    """Sums over batches of squared errors and sizes, by whatever is judged."""

    error: dict[tuple[str, str], float] = field(default_factory=dict)
    size: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, key: tuple[str, str], error: float, size: float) -> None:
        """Take in one batch."""
        self.error[key] = self.error.get(key, 0.0) + error
        self.size[key] = self.size.get(key, 0.0) + size

    def relative(self, key: tuple[str, str]) -> float:
        """Squared error over squared size."""
        return self.error[key] / max(self.size[key], _NOTHING)


def reader_errors(
    index: GraphIndex,
    placement: Placement,
    candidates: Candidates,
    parts: Sequence[Samples],
) -> dict[str, dict[str, float]]:
    """For each value and each of its candidates the error at the outputs of what reads the value.

    Each value is quantised alone; its readers see all else in float. The errors of several
    readers, each relative to its output, add up.
    """
    shadows = Shadows(index, placement)
    judged: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, affines in candidates.items():
        same: dict[Affine, list[tuple[str, str]]] = {}
        for label, affine in affines.items():
            if affine not in same:
                same[affine] = shadows.follow(name, affine)
            judged[name, label] = same[affine]
    session = open_offloaded(index, shadows.additions)
    distinct = {pair for pairs in judged.values() for pair in pairs}
    sums = Errors()
    for _, run in feed(session, input_tensors(index.proto), parts):
        made = run(shadows.additions.outputs, {})
        for error, size in distinct:
            sums.add((error, size), float(made[error]), float(made[size]))
    return {
        name: {label: sum(map(sums.relative, judged[name, label])) for label in affines}
        for name, affines in candidates.items()
    }


def judged_outputs(proto: ModelProto) -> list[str]:
    """What tells of an error best: the outputs, or what a final Softmax or Sigmoid is made of.

    Where these saturate, a few samples near a border would decide alone.
    """
    stored = {tensor.name for tensor in proto.graph.initializer}
    producer = {name: node for node in proto.graph.node for name in node.output}
    judged = []
    for name in (v.name for v in proto.graph.output if v.name not in stored):
        node = producer.get(name)
        judged.append(node.input[0] if node is not None and node.op_type in _SATURATE else name)
    return judged


def output_error(
    index: GraphIndex, path: Path, judged: Sequence[str], parts: Sequence[Samples]
) -> float:
    """The squared error of a file's float outputs against those of the model, over their size.

    Args:
        index: of the model in float.
        path: what became of it, run as a user would run it.
        judged: outputs of the file; in the order of ``judged_outputs`` of the model.
        parts: the samples to judge on.
    """
    outputs = judged_outputs(index.proto)
    session = open_offloaded(index, Additions(outputs=outputs))
    tensors = input_tensors(index.proto)
    sums = Errors()
    for (_, run_float), (_, run) in zip(
        feed(session, tensors, parts),
        feed(open_session(path), tensors, parts),
        strict=True,
    ):
        expected, made = run_float(outputs, {}), run(list(judged), {})
        for name, other in zip(outputs, judged, strict=True):
            _compare(sums, (name, other), expected[name], made[other])
    return sum(map(sums.relative, sums.error))


def _compare(
    sums: Errors, key: tuple[str, str], old: NDArray[np.generic], new: NDArray[np.generic]
) -> None:
    if old.dtype.kind != "f" or old.shape != new.shape:
        return
    before = old.astype(np.float64)
    finite = np.isfinite(before)
    error = np.square(new.astype(np.float64) - before)[finite].sum()
    sums.add(key, float(error), float(np.square(before[finite]).sum()))
