"""Checks of a channel removal: outputs stay where channels were zero, and the MACs decrease."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, helper, numpy_helper

from edgekit.compression.pruning.dependency import find_channels
from edgekit.compression.pruning.surgery import (
    count_remaining_macs,
    remove_groups,
    select_removable,
)
from edgekit.onnx_graph.cost import compute_cost
from edgekit.onnx_graph.rewrites.prepare import prepare

# What divides or is a power is not zeroed.
_KEPT = {("Div", 1), ("Pow", 1), ("Mod", 1)}


def found(proto):
    return find_channels(prepare(proto, 13))


def shares(channels, share, seed=0):
    """Choose a share of each family that leaves at least one group."""
    rng = np.random.default_rng(seed)
    wanted = []
    for family in channels.families:
        some = max(1, round(share * len(family.groups)))
        wanted += rng.permutation(family.groups)[:some].tolist()
    return select_removable(channels, wanted)


def zero_groups(channels, gone):
    """Return the model with the producers of some groups, and aligned values, set to zero."""
    made = ModelProto()
    made.CopyFrom(channels.proto)
    stored = {t.name: t for t in made.graph.initializer}
    nodes = {_key(node): node for node in made.graph.node}
    arrays = {}
    for number in gone:
        for place in channels.groups[number].places:
            if place.role == "reads" or (place.node.op_type, place.position) in _KEPT:
                continue
            at = (_key(place.node), place.position)
            if at not in arrays:
                arrays[at] = numpy_helper.to_array(stored[place.tensor]).copy()
            np.moveaxis(arrays[at], place.axis, 0)[place.indices] = 0
    for (node, position), array in arrays.items():
        name = f"zeroed:{node}:{position}"
        made.graph.initializer.append(numpy_helper.from_array(array, name))
        nodes[node].input[position] = name
    return made


def _key(node):
    return next(name for name in node.output if name)


def run(proto, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [session.run(None, feed) for feed in feeds]


def feeds_of(proto, batch, length, seed=0):
    """Return random inputs; free first axes are the batch, other free axes get a length."""
    rng = np.random.default_rng(seed)
    stored = {t.name for t in proto.graph.initializer}
    made = {}
    for value in proto.graph.input:
        if value.name in stored:
            continue
        dims = enumerate(value.type.tensor_type.shape.dim)
        size = [d.dim_value or (length if axis else batch) for axis, d in dims]
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        many = rng.normal(size=size) if kind.kind == "f" else rng.integers(1, 2 + 6, size)
        made[value.name] = many.astype(kind)
    return made


def holds(channels, gone, sizes=((1, 6), (3, 5)), *, counts=True):
    """Assert the promises of a channel removal."""
    smaller = remove_groups(channels, gone)
    onnx.checker.check_model(smaller, full_check=True)
    feeds = [feeds_of(channels.proto, *size) for size in sizes]
    for before, after in zip(
        run(zero_groups(channels, gone), feeds), run(smaller, feeds), strict=True
    ):
        for one, other in zip(before, after, strict=True):
            assert one.shape == other.shape
            scale = max(1.0, float(np.abs(one).max(initial=0)))
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-4 * scale)
    if not counts:
        return smaller
    dims = {"n": 1, "l": 16}
    counted = compute_cost(smaller, dims)
    if not counted.unknown and compute_cost(channels.proto, dims).macs == count_remaining_macs(
        channels
    ):
        assert counted.macs == count_remaining_macs(channels, gone)
    return smaller


def kinds(channels):
    """Return (kind, groups, width) of each family."""
    return [(f.kind, len(f.groups), f.width) for f in channels.families]


def reasons(channels):
    return {fixed.where: fixed.reason for fixed in channels.fixed}
