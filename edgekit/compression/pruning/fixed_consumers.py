"""Weights that read prunable channels and cannot be refitted after their removal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.compression.numerics import TINY, Doubles
from edgekit.compression.pruning.dependency import Channels
from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.propagation import Use
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.runs.activations import Values


@dataclass(frozen=True, kw_only=True)
class FixedReader:
    """Weight that reads prunable channels and is not refitted.

    ``costs`` holds the cost of each channel in ``labels``: the power of the channel times the power
    of its weights, relative to the sum over all channels. ``reason`` says why the weight is not
    refitted.
    """

    name: str
    labels: Axis
    costs: Doubles
    reason: str


@dataclass(frozen=True, kw_only=True)
class FixedRead:
    """Input axis of a fixed weight, the value and axis that it reads, and the weight powers."""

    name: str
    labels: Axis
    value: str
    axis: int
    powers: Doubles
    reason: str


def find_fixed_reads(channels: Channels, index: GraphIndex, uses: Sequence[Use]) -> list[FixedRead]:
    """Find the reads by weights that are not refitted.

    Args:
        channels: channels of the graph.
        index: index of the graph.
        uses: summed axes of weights; reads through a Transpose are added.
    """
    found = [read for use in uses if (read := _build_read(index, use)) is not None]
    found += _iter_transposed_reads(channels, index)
    made = {name for node in index.graph.node for name in node.output}
    made |= {value.name for value in index.graph.input}
    return [read for read in found if read.value in made]


def _build_read(index: GraphIndex, use: Use) -> FixedRead | None:
    name = use.node.input[use.position]
    if not _is_float(index, name):
        return None
    count = len(index.readers[name])
    reason = (
        f"it is shared by {count} nodes" if count > 1 else f"it is a weight of {use.node.op_type}"
    )
    return FixedRead(
        name=name,
        labels=use.labels,
        value=use.value,
        axis=use.value_axis,
        powers=_compute_powers(index, name, use.axis),
        reason=reason,
    )


def _iter_transposed_reads(channels: Channels, index: GraphIndex) -> Iterator[FixedRead]:
    """Yield the reads of products with a transposed weight that other nodes read as well."""
    for node in index.graph.node:
        maker = index.producer.get(node.input[1]) if node.op_type == "MatMul" else None
        if maker is None or maker.op_type != "Transpose" or not _is_float(index, maker.input[0]):
            continue
        axes = channels.walk.axes.get(node.input[1], [])
        rank = len(axes)
        perm = read_attribute(maker, "perm", list(reversed(range(rank))))
        if rank < 2 or not isinstance(perm, list) or not channels.members(axes[-2]).size:
            continue
        yield FixedRead(
            name=maker.input[0],
            labels=axes[-2],
            value=node.input[0],
            axis=-1,
            powers=_compute_powers(index, maker.input[0], perm[-2]),
            reason=f"it is shared by {len(index.readers[maker.input[0]])} nodes",
        )


def _is_float(index: GraphIndex, name: str) -> bool:
    value = index.constant(name)
    return value is not None and value.dtype.kind == "f" and value.ndim > 0


def _compute_powers(index: GraphIndex, name: str, axis: int) -> Doubles:
    weight = index.float_constant(name).astype(np.float64)
    others = tuple(a for a in range(weight.ndim) if a != axis)
    powers: Doubles = np.square(weight).sum(axis=others)
    return powers


class Powers:
    """Powers of the channels that fixed weights read, accumulated over a stream of values."""

    def __init__(self, reads: Sequence[FixedRead]) -> None:
        self.reads = reads
        self._sums: list[Doubles] = [np.zeros(len(read.labels)) for read in reads]

    def watch(self, stream: Iterable[Values]) -> Iterator[Values]:
        """Yield the values of a stream unchanged and add their squares."""
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
        """Compute the costs of each weight; without observed values only the weights count."""
        made = []
        for read, total in zip(self.reads, self._sums, strict=True):
            costs = read.powers * (total if total.any() else 1.0)
            made.append(
                FixedReader(
                    name=read.name,
                    labels=read.labels,
                    costs=costs / (costs.sum() + TINY),
                    reason=read.reason,
                )
            )
        return made
