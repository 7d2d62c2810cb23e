"""Second moments of the inputs of layers over samples, of one graph or of a graph and its copy."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from onnx import ModelProto

from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.compression.reconstruction.moments import Moments
from edgekit.errors import PassRefused
from edgekit.onnx_graph.runs.activations import Values, observe
from edgekit_agent.samples import Samples


def build_not_finite_error(error: FloatingPointError) -> PassRefused:
    """Build the error for a value, named by ``error``, whose sums are not finite."""
    return PassRefused(
        f"activation {error} is not finite on the calibration samples, or too large to be squared"
    )


def gather_moments(layers: Mapping[str, Layer], stream: Iterable[Values]) -> dict[str, Moments]:
    """Gather the moments of each layer's input over a stream of batches, in constant memory.

    Args:
        layers: the layers, by any key.
        stream: the input values of the layers, batch by batch.

    Raises:
        FloatingPointError: names a value that is not finite, or too large to be squared.
    """
    first = _find_distinct_inputs(layers)
    seen = {what: Moments.create_empty(layer.groups, layer.inputs) for what, layer in first.items()}
    for values in stream:
        for what, layer in first.items():
            rows = layer.read_rows(values)
            if rows.size:
                seen[what].add(rows)
    for what, layer in first.items():
        seen[what].settle()
        if not np.isfinite(seen[what].square).all():
            raise FloatingPointError(layer.read)
    return {key: seen[layer.input_key] for key, layer in layers.items()}


def gather_paired_moments(
    original: ModelProto,
    changed: ModelProto,
    layers: Mapping[str, Layer],
    parts: Sequence[Samples],
) -> dict[str, Moments]:
    """Gather the moments of each layer's inputs in a changed graph, in constant memory.

    The targets that belong to the inputs are those of the original graph.

    Args:
        original: the graph.
        changed: a graph with the same nodes and other weights.
        layers: the layers, by any key.
        parts: samples to run.

    Raises:
        FloatingPointError: names a value that is not finite in one of the graphs.
    """
    first = _find_distinct_inputs(layers)
    seen = {
        what: Moments.create_empty(layer.groups, layer.inputs, layer.inputs)
        for what, layer in first.items()
    }
    names = list(dict.fromkeys(layer.read for layer in first.values()))
    streams = (observe(proto, names, parts) for proto in (original, changed))
    for before, after in zip(*streams, strict=True):
        for what, layer in first.items():
            targets, rows = (layer.read_rows(values) for values in (before, after))
            if rows.size:
                seen[what].add(rows, targets)
    for pairs in seen.values():
        pairs.settle()
    return {key: seen[layer.input_key] for key, layer in layers.items()}


def _find_distinct_inputs(layers: Mapping[str, Layer]) -> dict[Hashable, Layer]:
    """Find a layer for each distinct input, as layers that read the same share its moments."""
    found: dict[Hashable, Layer] = {}
    for layer in layers.values():
        found.setdefault(layer.input_key, layer)
    return found
