"""Observation of many values in little memory: only extremes or some entries are output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.runs.activations import Tick, feed, get_input_tensors
from edgekit.onnx_graph.runs.instrumented_session import Additions, open_offloaded
from edgekit_agent.samples import Samples

# Entries of one value for its histogram: most and least in one batch, and in total over all
# samples. The extremes are over all entries.
_MAX_ENTRIES = 1 << 15
_LEAST_ENTRIES = 1 << 12
_ENTRIES_OF_ALL = 1 << 21

# Smallest and largest entry, sum, number of entries.
Facts = tuple[float, float, float, int]


def iter_extremes(
    index: GraphIndex,
    names: Sequence[str],
    parts: Sequence[Samples],
    *,
    tick: Tick | None = None,
) -> Iterator[dict[str, Facts]]:
    """Yield for each batch the minimum, maximum, sum and number of entries of each value.

    Without entries the extremes are infinite; a sum that is not finite indicates entries that are
    not.

    Args:
        index: of the model; not changed.
        names: the values.
        parts: the samples to feed, one part after the other.
        tick: as in ``observe``.

    Raises:
        UserError: as ``observe``.
    """
    additions = Additions()
    measures = ("ReduceMin", "ReduceMax", "ReduceSum", "Size")
    for number, name in enumerate(names):
        for op in measures:
            output = f"edgekit:{op}:{number}"
            keep = {} if op == "Size" else {"keepdims": 0}
            additions.add(name, helper.make_node(op, [name], [output], **keep))
            additions.outputs.append(output)
    session = open_offloaded(index, additions)
    for _, run in feed(session, get_input_tensors(index.proto), parts, tick=tick):
        outputs = run(additions.outputs, {})
        yield {
            name: (
                float(outputs[f"edgekit:ReduceMin:{number}"]),
                float(outputs[f"edgekit:ReduceMax:{number}"]),
                float(outputs[f"edgekit:ReduceSum:{number}"]),
                int(outputs[f"edgekit:Size:{number}"]),
            )
            for number, name in enumerate(names)
        }


def iter_entries(
    index: GraphIndex,
    sizes: Mapping[str, int],
    parts: Sequence[Samples],
    *,
    tick: Tick | None = None,
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Yield for each batch some entries of each value, from all of its channels.

    Args:
        index: of the model; not changed.
        sizes: number of entries of each value in one batch.
        parts: the samples to feed, one part after the other.
        tick: as in ``observe``.
    """
    additions = Additions()
    count = sum(part.columns[0].shape[0] for part in parts)
    most = min(_MAX_ENTRIES, max(_LEAST_ENTRIES, _ENTRIES_OF_ALL // count))
    slice_constants = [("flat", [-1]), ("start", [0]), ("end", [np.iinfo(np.int64).max])]
    for stem, numbers in slice_constants:
        additions.constants.append(numpy_helper.from_array(np.array(numbers), f"edgekit:{stem}"))
    for number, (name, size) in enumerate(sizes.items()):
        step = numpy_helper.from_array(
            np.array([_choose_stride(size, most)]), f"edgekit:step:{number}"
        )
        additions.constants.append(step)
        additions.add(name, *_make_pick_nodes(name, number))
        additions.outputs.append(f"edgekit:entries:{number}")
    session = open_offloaded(index, additions)
    for _, run in feed(session, get_input_tensors(index.proto), parts, tick=tick):
        outputs = run(additions.outputs, {})
        yield dict(zip(sizes, outputs.values(), strict=True))


def _make_pick_nodes(name: str, number: int) -> list[NodeProto]:
    flat, output = f"edgekit:flat:{number}", f"edgekit:entries:{number}"
    # The second start stands for the axis, which is 0 as well.
    bounds = ["edgekit:start", "edgekit:end", "edgekit:start", f"edgekit:step:{number}"]
    return [
        helper.make_node("Reshape", [name, "edgekit:flat"], [flat]),
        helper.make_node("Slice", [flat, *bounds], [output]),
    ]


def _choose_stride(size: int, most: int) -> int:
    """Return a stride coprime to the size, so that entries of all channels are sampled."""
    stride = max(1, size // most)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride
