"""Which of several ranges of a value makes the least error, on samples held back for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.instrument import Additions, open_instrumented
from edgekit.graphs.observe import feed
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
    proto: ModelProto,
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
    inputs: dict[str, tuple[str, str]] = {}
    judged: dict[str, list[tuple[str, str]]] = {}
    for name in candidates:
        twin, *parameters = shadows.through_8_bits(name)
        inputs[name] = (parameters[0], parameters[1])
        judged[name] = shadows.follow(name, twin)
    session = open_instrumented(proto, shadows.additions)
    labels = list(dict.fromkeys(label for each in candidates.values() for label in each))
    sums = {label: Errors() for label in labels}
    for _, run in feed(session, proto, parts):
        for label in labels:
            more: dict[str, NDArray[np.generic]] = {}
            for name, affines in candidates.items():
                more |= _fed(affines[label], inputs[name])
            made = run(shadows.additions.outputs, more)
            for pairs in judged.values():
                for error, size in pairs:
                    sums[label].add((error, size), float(made[error]), float(made[size]))
    return {
        name: {label: sum(map(sums[label].relative, judged[name])) for label in labels}
        for name in candidates
    }


def _fed(affine: Affine, names: tuple[str, str]) -> dict[str, NDArray[np.generic]]:
    return {names[0]: np.asarray(affine.scale), names[1]: np.asarray(affine.zero_point)}


def output_errors(
    proto: ModelProto,
    index: GraphIndex,
    placement: Placement,
    choices: Mapping[str, Mapping[str, Affine]],
    parts: Sequence[Samples],
) -> dict[str, float]:
    """The relative squared error of the model's float outputs with all values in 8 bits.

    Args:
        proto: the model in float.
        index: of the model.
        placement: which values become 8-bit.
        choices: by any label, parameters of each of these values.
        parts: the samples to judge on.
    """
    shadows = Shadows(index, placement)
    inputs: dict[str, tuple[str, str]] = {}
    for name in placement.values:
        twin, *parameters = shadows.through_8_bits(name)
        inputs[name] = (parameters[0], parameters[1])
        shadows.additions.reads[name] = twin
    outputs = [v.name for v in proto.graph.output if v.name not in index.initializers]
    seen = {name: shadows.additions.reads.get(name, name) for name in outputs}
    shadows.additions.outputs += seen.values()
    session = open_instrumented(proto, shadows.additions)
    reference = open_instrumented(proto, Additions())
    sums = Errors()
    for (_, run), (_, run_float) in zip(
        feed(session, proto, parts), feed(reference, proto, parts), strict=True
    ):
        expected = run_float(outputs, {})
        for label, affines in choices.items():
            more: dict[str, NDArray[np.generic]] = {}
            for name in placement.values:
                more |= _fed(affines[name], inputs[name])
            made = run(list(seen.values()), more)
            for name in outputs:
                _compare(sums, (label, name), expected[name], made[seen[name]])
    return {
        label: sum(sums.relative(key) for key in sums.error if key[0] == label)
        for label in choices
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
