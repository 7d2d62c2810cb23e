"""Errors of candidate activation ranges at the readers, on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgekit.compression.quantization.affine import Affine
from edgekit.compression.quantization.calibration.fake_quantization import FakeQuantCopies
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.qdq_placement import Placement
from edgekit.onnx_graph.runs.activations import feed, get_input_tensors
from edgekit.onnx_graph.runs.instrumented_session import open_offloaded
from edgekit_agent.samples import Samples

# Least squared size, for outputs that are all zeros.
_NOTHING = 1e-30

# Candidate parameters by value and label.
Candidates = Mapping[str, Mapping[str, Affine]]


@dataclass(kw_only=True)
class Errors:
    """Squared errors and squared sizes, summed over batches, by key."""

    error: dict[tuple[str, str], float] = field(default_factory=dict)
    size: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, key: tuple[str, str], error: float, size: float) -> None:
        """Add the error and size of one batch."""
        self.error[key] = self.error.get(key, 0.0) + error
        self.size[key] = self.size.get(key, 0.0) + size

    def relative(self, key: tuple[str, str]) -> float:
        """Return the squared error over the squared size."""
        return self.error[key] / max(self.size[key], _NOTHING)


def measure_reader_errors(
    index: GraphIndex,
    placement: Placement,
    candidates: Candidates,
    parts: Sequence[Samples],
    *,
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Measure the error that each candidate range of a value causes in the outputs of its readers.

    Each value is quantized alone; its readers see all other inputs in float. The errors of several
    readers, each relative to its output, add up.

    Args:
        index: the float graph, its weights offloaded.
        placement: with all layers in 8 bits.
        candidates: parameters by value and label.
        parts: samples to run.
        tick: called with the number of samples done.

    Returns:
        Errors by value and label.
    """
    shadows = FakeQuantCopies(index, placement)
    judged: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, affines in candidates.items():
        same: dict[Affine, list[tuple[str, str]]] = {}
        for label, affine in affines.items():
            if affine not in same:
                same[affine] = shadows.copy_readers(name, affine)
            judged[name, label] = same[affine]
    session = open_offloaded(index, shadows.additions)
    distinct = {pair for pairs in judged.values() for pair in pairs}
    sums = Errors()
    for _, run in feed(session, get_input_tensors(index.proto), parts, tick=tick):
        made = run(shadows.additions.outputs, {})
        for error, size in distinct:
            sums.add((error, size), float(made[error]), float(made[size]))
    return {
        name: {label: sum(map(sums.relative, judged[name, label])) for label in affines}
        for name, affines in candidates.items()
    }
