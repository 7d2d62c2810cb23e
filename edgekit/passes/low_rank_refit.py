"""The second of two thin layers, fitted anew to what the first really gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto

from edgekit.graphs.divergence import Reference
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import observe
from edgekit.graphs.placement import Weighted, as_weighted
from edgekit.passes.grids import Doubles
from edgekit.passes.layer_inputs import Array, Layer
from edgekit.passes.low_rank_graph import Thin
from edgekit.passes.stored_layers import StoredLayer, bias_of, replaced, shifted_bias
from edgekit.progress import Tick
from edgekit_agent.records import Samples

# Times that all samples are run, each for some of the layers, so that those behind see the others.
_STAGES = 16
# Added to the mean power of what a layer reads, part of it, before it is divided by.
_DAMPING = 0.02
# Rows that wait for others before they are multiplied.
_MOST_WAITING = 1024


@dataclass
class _Fit:
    """Sums over what a layer reads, z [G, I], and what its outputs miss, e [G, O]."""

    layer: Layer
    weighted: Weighted
    takes_mean: bool
    target: str
    square: Doubles | float = 0.0
    cross: Doubles | float = 0.0
    read: Doubles | float = 0.0
    missed: Doubles | float = 0.0
    count: int = 0
    _waiting: list[tuple[Array, Array]] = field(default_factory=list)

    @property
    def output(self) -> str:
        """What the layer makes."""
        return str(self.layer.node.output[0])

    def add(self, value: Array, before: Array, after: Array) -> None:
        """Take in what the layer reads, and its target before and after the split."""
        rows = self.layer.rows(value)
        missing = self.layer.results(before) - self.layer.results(after)
        self._waiting.append((rows, missing))
        if sum(r.shape[1] for r, _ in self._waiting) >= _MOST_WAITING:
            self.settle()

    def settle(self) -> None:
        """Take in what waits; few rows at a time wait, as each product costs a matrix."""
        if not self._waiting:
            return
        rows, missing = (np.concatenate(each, axis=1) for each in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self.square = self.square + (rows.transpose(0, 2, 1) @ rows).astype(np.float64)
        self.cross = self.cross + (missing.transpose(0, 2, 1) @ rows).astype(np.float64)
        self.read = self.read + rows.sum(axis=1, dtype=np.float64)
        self.missed = self.missed + missing.sum(axis=1, dtype=np.float64)
        self.count += rows.shape[1]

    def change(self) -> tuple[Doubles, Doubles]:
        """What to add to the weight, [G, O, I], and to the bias, [G * O]; ridge regression."""
        self.settle()
        count = max(self.count, 1)
        square, cross = np.asarray(self.square) / count, np.asarray(self.cross) / count
        read, missed = np.asarray(self.read) / count, np.asarray(self.missed) / count
        if self.takes_mean:
            square = square - read[:, :, None] * read[:, None, :]
            cross = cross - missed[:, :, None] * read[:, None, :]
        size = square.shape[-1]
        power = np.trace(square, axis1=1, axis2=2)[:, None, None] / size
        damped = square + np.eye(size) * np.maximum(_DAMPING * power, np.finfo(float).tiny)
        added = np.linalg.solve(damped, cross.transpose(0, 2, 1)).transpose(0, 2, 1)
        shift = missed - (added @ read[:, :, None])[:, :, 0]
        return added, shift.ravel() if self.takes_mean else np.zeros(shift.size)


def refitted(
    original: ModelProto,
    proto: ModelProto,
    thin: Sequence[Thin],
    parts: Sequence[Samples],
    reference: Reference,
    tick: Tick,
) -> ModelProto:
    """A copy of the split graph whose second factors bring what the original makes nearest.

    Layers are fitted in the order of the graph, some at a time, each on what those before it give
    now. One whose output only goes into a sum brings the sum nearest. Where that takes the outputs
    away from the original's, half way or in the end, it is the split graph as it was.

    Args:
        original: before the split.
        proto: after it.
        thin: the layers that were split.
        parts: samples.
        reference: the original's outputs on others.
        tick: told how far it is.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    index = GraphIndex(copy)
    order = {node.output[0]: place for place, node in enumerate(index.graph.node) if node.output}
    outputs = sorted((each.node.output[0] for each in thin), key=order.__getitem__)
    stages = np.array_split(np.array(outputs, object), min(_STAGES, len(outputs)))
    for number, stage in enumerate(stages):
        tick("refitting", number, len(stages))
        fits = [_fit(index, name) for name in stage]
        _gather(original, copy, fits, parts)
        for fit in fits:
            _apply(index, fit)
        if number in (len(stages) // 2, len(stages) - 1) and not _nearer(copy, proto, reference):
            return proto
    return copy


def _nearer(proto: ModelProto, other: ModelProto, reference: Reference) -> bool:
    """Whether the outputs are nearer than those of the other, as far as can be told."""
    if not reference.can_tell:
        return True
    return reference.divergence(proto) < reference.divergence(other)


def _fit(index: GraphIndex, output: str) -> _Fit:
    node = index.producer[output]
    weighted = as_weighted(index, node)
    if weighted is None:
        raise ValueError(f"{output}: not made by a layer")
    layer = Layer(
        node=node, shape=tuple(index.initializers[weighted.weight].dims), axis=weighted.axis
    )
    takes_mean = node.op_type in ("Conv", "Gemm") or bias_of(index, weighted) is not None
    return _Fit(
        layer=layer,
        weighted=weighted,
        takes_mean=takes_mean,
        target=_target(index, weighted),
    )


def _target(index: GraphIndex, weighted: Weighted) -> str:
    """The sum that a layer's output goes into and nowhere else, or the output."""
    output: str = weighted.node.output[0]
    found = bias_of(index, weighted)
    value = output if found is None or found[0] is weighted.node else found[0].output[0]
    reader = index.only_reader(value)
    if reader is None or reader.op_type != "Add":
        return output
    if any(name in index.initializers for name in reader.input):
        return output
    return str(reader.output[0])


def _gather(
    original: ModelProto, proto: ModelProto, fits: Sequence[_Fit], parts: Sequence[Samples]
) -> None:
    made = list(dict.fromkeys(name for fit in fits for name in (fit.target, fit.output)))
    read = list(dict.fromkeys(fit.layer.node.input[0] for fit in fits))
    befores = observe(original, made, parts)
    for before, after in zip(befores, observe(proto, [*made, *read], parts), strict=True):
        for fit in fits:
            # A sum may be of more entries than the layer makes, which then count by themselves.
            same = before[fit.target].shape == before[fit.output].shape
            target = fit.target if same else fit.output
            values = after[fit.layer.node.input[0]], before[target], after[target]
            if not all(np.isfinite(value).all() for value in values):
                raise FloatingPointError(target)
            if values[0].size:
                fit.add(*(v.astype(np.float32, copy=False) for v in values))


def _apply(index: GraphIndex, fit: _Fit) -> None:
    added, shift = fit.change()
    name = fit.weighted.weight
    weight = index.float_constant(name)
    stored = StoredLayer(name=name, weight=weight, weighted=fit.weighted, layer=fit.layer)
    replaced(index, name, fit.layer.weight(stored.matrix + added))
    shifted_bias(index, stored, shift)
    index.drop_unread_constants()
