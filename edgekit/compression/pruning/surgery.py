"""Removal of channel groups from a graph: constants, shape constants and attributes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from edgekit.compression.pruning.dependency import Channels
from edgekit.compression.pruning.dependency.propagation import Use
from edgekit.compression.pruning.shape_surgery import update_shape_constants
from edgekit.onnx_graph.graph_index import GraphIndex

Flags = NDArray[np.bool_]


def remove_groups(channels: Channels, gone: Collection[int]) -> ModelProto:
    """Build a copy of the model without the given dependency groups.

    Weights lose the channels, shape inputs are updated, and shapes computed inside the graph follow
    for any size of free dimensions. If a group was zero everywhere, the outputs stay the same.

    Args:
        channels: dependency groups of a model, which is not changed.
        gone: numbers of the groups to remove.

    Raises:
        ValueError: an axis would become empty; the message names a value.
    """
    flags = channels.make_flags(gone)
    emptied = _find_empty_value(channels, flags)
    if emptied:
        raise ValueError(f"{emptied} would become empty")
    made = ModelProto()
    made.CopyFrom(channels.proto)
    if not flags.any():
        return made
    del made.graph.value_info[:]
    index = GraphIndex(made)
    _cut_constants(channels, flags, index)
    update_shape_constants(channels, flags, index)
    GraphIndex(made).drop_unread_constants()
    return made


def select_removable(channels: Channels, gone: Sequence[int]) -> list[int]:
    """Select the groups that can be removed together without emptying an axis.

    Args:
        channels: dependency groups of a model.
        gone: numbers of groups, in the order of removal; the last ones are kept first.
    """
    lengths = channels.lengths
    if lengths.count_kept(channels.make_flags(gone)).all():
        return list(gone)
    taken = lengths.start_removal()
    return [number for number in gone if taken.take(number)]


def count_remaining_macs(channels: Channels, gone: Collection[int] = ()) -> int:
    """Count the multiply-accumulates left after the removal of groups.

    Counted are Conv, ConvTranspose, Gemm, MatMul and Einsum, as in ``graphs.cost``, for the input
    sizes at which the groups were found. It takes milliseconds.

    Args:
        channels: dependency groups of a model.
        gone: numbers of the groups to remove.
    """
    left = channels.lengths.count_kept(channels.make_flags(gone)).tolist()
    return sum(
        constant * math.prod(left[number] for number in numbers)
        for constant, numbers in channels.costs
    )


def _find_empty_value(channels: Channels, flags: Flags) -> str | None:
    """Return the name of a value with an axis that would become empty; ``None`` without one."""
    lengths = channels.lengths
    empty = np.flatnonzero(lengths.count_kept(flags) == 0)
    if not len(empty):
        return None
    values = ((name, axis) for name, axes in channels.walk.axes.items() for axis in axes)
    found = (name for name, axis in values if lengths.number(axis) == empty[0])
    return next(found, "a stored tensor")


def _cut_constants(channels: Channels, flags: Flags, index: GraphIndex) -> None:
    """Remove the channels from every constant, separately for readers that keep other positions."""
    by_reader: dict[tuple[str, int], list[Use]] = defaultdict(list)
    for use in channels.walk.uses:
        by_reader[get_node_key(use.node), use.position].append(use)
    places = {get_node_key(node): node for node in index.graph.node}
    variants: dict[str, dict[bytes, list[tuple[NodeProto, int]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    masks: dict[bytes, list[Flags]] = {}
    for (reader, position), uses in by_reader.items():
        kept = [
            channels.find_kept_by_flags(u.labels, flags) for u in sorted(uses, key=lambda u: u.axis)
        ]
        if all(k.all() for k in kept):
            continue
        node = places[reader]
        mark = b"|".join(k.tobytes() for k in kept)
        masks[mark] = kept
        variants[node.input[position]][mark].append((node, position))
    for name, readers in variants.items():
        for mark, asked in readers.items():
            _replace_constant(index, name, masks[mark], asked)


def _replace_constant(
    index: GraphIndex, name: str, kept: list[Flags], readers: list[tuple[NodeProto, int]]
) -> None:
    value = index.constant(name)
    if value is None:
        raise KeyError(name)
    for axis, mask in enumerate(kept):
        if not mask.all():
            value = np.compress(mask, value, axis=axis)
    alone = sum(list(n.input).count(name) for n in index.readers[name]) == len(readers)
    if alone and name not in index.inner_reads and name not in index.outputs:
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        index.initializers[name].CopyFrom(tensor)
        return
    fresh = index.add_constant(name, value)
    for node, position in readers:
        node.input[position] = fresh


def get_node_key(node: NodeProto) -> str:
    """Return the first output name of a node, which identifies it in its graph."""
    name: str = next(name for name in node.output if name)
    return name
