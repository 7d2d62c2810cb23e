"""Activations of a model that changes from front to back, with the unchanged front cached."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from onnx import ModelProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.runs.activations import Values, get_input_tensors, observe
from edgekit.onnx_graph.runs.instrumented_session import Additions, open_instrumented
from edgekit.onnx_graph.subgraph import (
    collect_reads,
    extract_subgraph,
    find_downstream,
    find_upstream,
)
from edgekit_agent.measure.feeds import find_batch_size
from edgekit_agent.samples import Samples

# Largest size of the cached values of all samples together.
_MOST_BYTES = 192 << 20


class Replay:
    """Cache of activations for repeated runs of one model over the same samples.

    Values at the border between the settled part of the model and the rest are cached if they take
    little memory, and the next run starts from them.

    Args:
        parts: the samples.
    """

    def __init__(self, parts: Sequence[Samples]) -> None:
        self._parts = parts
        self._kept: list[Values] | None = None
        self._settled: set[str] = set()

    def values(
        self,
        proto: ModelProto,
        names: Sequence[str],
        *,
        later: Collection[str],
        unsettled: Collection[str],
    ) -> Iterator[Values]:
        """Yield the named values, batch by batch.

        Args:
            proto: the model, unchanged up to the values that were ``unsettled`` in the last call.
            names: float values of the model.
            later: values that later calls will ask for.
            unsettled: values whose computation may change before the next call.
        """
        index = GraphIndex(proto)
        settled = self._settled | _find_settled_values(index, names, unsettled)
        onward = [] if self._is_fixed(proto) else _find_border_values(index, settled, later)
        keeping: list[Values] = []
        room = _MOST_BYTES
        for values in self._stream(proto, list(dict.fromkeys([*names, *onward]))):
            room -= sum(_count_bytes(values[name]) for name in onward)
            if room >= 0:
                keeping.append({name: values[name] for name in onward})
            else:
                keeping.clear()
            yield {name: values[name] for name in names}
        if room >= 0 and onward:
            self._kept, self._settled = keeping, settled

    def _is_fixed(self, proto: ModelProto) -> bool:
        """Return whether the model has a fixed batch, so that padding may fill the last one."""
        size = find_batch_size(self._parts[0], get_input_tensors(proto)) if self._parts else None
        return (size or 1) > 1

    def _stream(self, proto: ModelProto, names: Sequence[str]) -> Iterator[Values]:
        if self._kept is None:
            yield from observe(extract_subgraph(proto, names), names, self._parts)
            return
        wanted = [name for name in names if name not in self._kept[0]]
        session, fed = None, set[str]()
        if wanted:
            part = _feed_values(
                extract_subgraph(proto, wanted, available=self._kept[0]), self._kept[0]
            )
            session = open_instrumented(part, Additions(outputs=wanted))
            fed = {value.name for value in session.get_inputs()}
        for values in self._kept:
            made: Values = {}
            if session is not None:
                feeds = {name: value for name, value in values.items() if name in fed}
                made = dict(zip(wanted, session.run(wanted, feeds), strict=True))
            yield values | made


def _feed_values(part: ModelProto, given: Values) -> ModelProto:
    """Replace the inputs of a part of a model by inner values that will be fed."""
    del part.graph.input[:]
    for name, value in given.items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        part.graph.input.append(helper.make_tensor_value_info(name, kind, [None] * value.ndim))
    return part


def _find_settled_values(
    index: GraphIndex, names: Collection[str], unsettled: Collection[str]
) -> set[str]:
    """Find the values that are computed with the named ones and will not change."""
    found = find_upstream(index, names)
    for node in index.graph.node:  # a node computes all its outputs together
        if not found.isdisjoint(node.output):
            found.update(name for name in node.output if name)
    found |= {v.name for v in index.graph.input if v.name not in index.initializers}
    for name in unsettled:
        found -= find_downstream(index, name)
    return found - index.initializers.keys()


def _find_border_values(index: GraphIndex, settled: set[str], later: Collection[str]) -> list[str]:
    """Find the settled values that the rest of a graph reads."""
    rest = find_upstream(index, later)
    needed = set(later)
    for node in index.graph.node:
        if not rest.isdisjoint(node.output) and settled.isdisjoint(node.output):
            needed |= collect_reads(node)
    return sorted(needed & settled)


def _count_bytes(value: object) -> int:
    """Return the bytes to cache a value; more than the limit for values that are no tensors."""
    return value.nbytes if isinstance(value, np.ndarray) else _MOST_BYTES + 1
