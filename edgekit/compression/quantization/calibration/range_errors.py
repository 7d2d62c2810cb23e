"""Errors of candidate activation ranges at the readers, on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgekit.compression.quantization.affine import Affine
from edgekit.compression.quantization.calibration.fake_quantization import FakeQuantCopies
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.output_differences import SquaredErrors
from edgekit.onnx_graph.qdq_placement import Placement
from edgekit.onnx_graph.runs.activations import feed, get_input_tensors
from edgekit.onnx_graph.runs.instrumented_session import open_offloaded
from edgekit_agent.samples import Samples

# Candidate parameters by value and label.
Candidates = Mapping[str, Mapping[str, Affine]]


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
    sums = SquaredErrors[tuple[str, str]]()
    for _, run in feed(session, get_input_tensors(index.proto), parts, tick=tick):
        made = run(shadows.additions.outputs, {})
        for error, size in distinct:
            sums.add((error, size), float(made[error]), float(made[size]))
    return {
        name: {label: sum(map(sums.compute_relative, judged[name, label])) for label in affines}
        for name, affines in candidates.items()
    }
