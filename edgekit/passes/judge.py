"""Which of several ranges of a value makes the least error, on samples held back for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.instrument import open_offloaded
from edgekit.graphs.observe import feed, input_tensors
from edgekit.graphs.placement import Placement
from edgekit.passes.affine import Affine
from edgekit.passes.shadows import Shadows
from edgekit_agent.records import Samples

# A reader whose output is all zeros says nothing.
_NOTHING = 1e-30

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


def _fed(
    affines: Mapping[str, Affine], inputs: Mapping[str, tuple[str, str]]
) -> dict[str, NDArray[np.generic]]:
    made: dict[str, NDArray[np.generic]] = {}
    for name, (scale, zero) in inputs.items():
        made[scale] = np.asarray(affines[name].scale)
        made[zero] = np.asarray(affines[name].zero_point)
    return made


def output_errors(
    index: GraphIndex,
    placement: Placement,
    choices: Mapping[str, Mapping[str, Affine]],
    parts: Sequence[Samples],
) -> dict[str, float]:
    """The relative squared error of the model's float outputs with all values in 8 bits.

    Args:
        index: of the model in float.
        placement: which values become 8-bit.
        choices: by any label, parameters of each of these values.
        parts: the samples to judge on.
    """
    shadows = Shadows(index, placement)
    in_float = shadows.fresh("float")
    shadows.add_input(in_float, TensorProto.BOOL)
    inputs = {name: shadows.switch_to_8_bits(name, in_float) for name in placement.values}
    outputs = [v.name for v in index.graph.output if v.name not in index.initializers]
    seen = [shadows.additions.reads.get(name, name) for name in outputs]
    shadows.additions.outputs += seen
    session = open_offloaded(index, shadows.additions)
    sums = Errors()
    for _, run in feed(session, input_tensors(index.proto), parts):
        any_of_them = next(iter(choices.values()))
        expected = run(seen, _fed(any_of_them, inputs) | {in_float: np.array(True)})
        for label, affines in choices.items():
            made = run(seen, _fed(affines, inputs) | {in_float: np.array(False)})
            for name in seen:
                _compare(sums, (label, name), expected[name], made[name])
    return {
        label: sum(sums.relative(key) for key in sums.error if key[0] == label) for label in choices
    }


def _compare(
    sums: Errors, key: tuple[str, str], old: NDArray[np.generic], new: NDArray[np.generic]
) -> None:
    if old.dtype.kind != "f" or old.shape != new.shape:
        return
    before = old.astype(np.float64)
    finite = np.isfinite(before)
    error = np.square(new.astype(np.float64) - before)[finite].sum()
    sums.add(key, float(error), float(np.square(before[finite]).sum()))
