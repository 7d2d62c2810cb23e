"""Stored weights that read channels which may go, and that cannot be refitted to the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.graphs.channels import Channels
from edgekit.graphs.channels.atoms import Axis
from edgekit.graphs.channels.walking import Use
from edgekit.graphs.index import GraphIndex, attribute
from edgekit.graphs.observe import Values
from edgekit.passes.grids import Doubles

_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class FixedReader:
    """A weight that reads channels which may go, and that is not refitted.

    ``costs`` says for each position of ``labels`` what goes with it: the power of what is read
    there times that of the weight, relative to all. ``reason`` says why it is not refitted.
    """

    name: str
    labels: Axis
    costs: Doubles
    reason: str


@dataclass(frozen=True, kw_only=True)
class FixedRead:
    """One axis of such a weight, the value whose ``axis`` it reads, and the weight's own power."""

    name: str
    labels: Axis
    value: str
    axis: int
    powers: Doubles
    reason: str


def fixed_reads(channels: Channels, index: GraphIndex, uses: Sequence[Use]) -> list[FixedRead]:
    """The reads of weights that are not refitted.

    Args:
        channels: of the graph.
        index: the graph.
        uses: axes of weights that are summed over; those of transposed weights come on top.
    """
    found = [read for use in uses if (read := _of_use(index, use)) is not None]
    found += _through_transpose(channels, index)
    made = {name for node in index.graph.node for name in node.output}
    made |= {value.name for value in index.graph.input}
    return [read for read in found if read.value in made]


def _of_use(index: GraphIndex, use: Use) -> FixedRead | None:
    name = use.node.input[use.position]
    if not _is_float(index, name):
        return None
    count = len(index.readers[name])
    reason = f"it is read by {count} nodes" if count > 1 else f"it belongs to {use.node.op_type}"
    return FixedRead(
        name=name,
        labels=use.labels,
        value=use.value,
        axis=use.value_axis,
        powers=_powers(index, name, use.axis),
        reason=reason,
    )


def _through_transpose(channels: Channels, index: GraphIndex) -> Iterator[FixedRead]:
    """Products with the transpose of a weight that something else reads as well."""
    for node in index.graph.node:
        maker = index.producer.get(node.input[1]) if node.op_type == "MatMul" else None
        if maker is None or maker.op_type != "Transpose" or not _is_float(index, maker.input[0]):
            continue
        axes = channels.walk.axes.get(node.input[1], [])
        rank = len(axes)
        perm = attribute(maker, "perm", list(reversed(range(rank))))
        if rank < 2 or not isinstance(perm, list) or not channels.members(axes[-2]).size:
            continue
        yield FixedRead(
            name=maker.input[0],
            labels=axes[-2],
            value=node.input[0],
            axis=-1,
            powers=_powers(index, maker.input[0], perm[-2]),
            reason=f"it is read by {len(index.readers[maker.input[0]])} nodes",
        )


def _is_float(index: GraphIndex, name: str) -> bool:
    value = index.constant(name)
    return value is not None and value.dtype.kind == "f" and value.ndim > 0


def _powers(index: GraphIndex, name: str, axis: int) -> Doubles:
    weight = index.float_constant(name).astype(np.float64)
    others = tuple(a for a in range(weight.ndim) if a != axis)
    powers: Doubles = np.square(weight).sum(axis=others)
    return powers


class Powers:
    """Mean squares of what fixed weights read, gathered while a stream of values goes by."""

    def __init__(self, reads: Sequence[FixedRead]) -> None:
        self.reads = reads
        self._sums: list[Doubles] = [np.zeros(len(read.labels)) for read in reads]

    def watch(self, stream: Iterable[Values]) -> Iterator[Values]:
        """The same stream."""
        for values in stream:
            for read, total in zip(self.reads, self._sums, strict=True):
                value = values[read.value].astype(np.float64)
                if value.ndim and -value.ndim <= read.axis < value.ndim:
                    found = np.square(np.moveaxis(value, read.axis, -1))
                    found = found.reshape(-1, value.shape[read.axis]).sum(axis=0)
                    if len(found) == len(total):
                        total += found
            yield values

    def readers(self) -> list[FixedReader]:
        """What was found; what was never seen counts as equally strong everywhere."""
        made = []
        for read, total in zip(self.reads, self._sums, strict=True):
            costs = read.powers * (total if total.any() else 1.0)
            made.append(
                FixedReader(
                    name=read.name,
                    labels=read.labels,
                    costs=costs / (costs.sum() + _TINY),
                    reason=read.reason,
                )
            )
        return made
