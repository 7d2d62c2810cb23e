"""Prunable structure of a model: channels, heads, neurons and layers, with the cost they save."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx import ModelProto, NodeProto, TypeProto

from edgekit.compression.layers.skip_reasons import stores_integer_weights
from edgekit.compression.pass_input import OPSET
from edgekit.compression.pruning.dependency import (
    Channels,
    Family,
    FixedPart,
    TensorPart,
    find_channels,
)
from edgekit.compression.pruning.dependency.inner_layers import describe_inner_layers
from edgekit.compression.pruning.dependency.propagation import Use
from edgekit.compression.pruning.residual_branches import Branch, list_branches
from edgekit.compression.pruning.surgery import (
    count_remaining_macs,
    get_node_key,
    select_removable,
)
from edgekit.conversion.model_facts import load_graph
from edgekit.errors import PassRefused
from edgekit.model import Model, name_dimension
from edgekit.onnx_graph.rewrites.prepare import QUANTIZED_ALREADY, prepare
from edgekit.onnx_graph.shape_inference import get_fixed_shape


@dataclass(frozen=True, kw_only=True)
class PrunablePart:
    """Prunable groups of one layer and its dependents, or a residual layer.

    Attributes:
        name: Name of the first layer that computes them.
        kind: Kind of the groups: channels, heads, neurons or layers.
        groups: Number of groups; each can be removed on its own.
        width: Number of outputs of the first layer per group.
        layers: Number of layers that depend on each group.
        macs: Multiply-accumulates saved if all groups but one are removed; for a residual layer,
            all of its own.
        parameters: Number of stored values that are removed with them.
    """

    name: str
    kind: str
    groups: int
    width: int
    layers: int
    macs: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class FixedReason:
    """Reason why the channels of layers stay, with the number of layers and the first one."""

    layers: int
    example: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PrunableStructure:
    """Prunable structure of a model.

    Attributes:
        refused: Reason why nothing can be pruned; empty otherwise.
        parts: Prunable parts, in the order of the graph.
        macs: Multiply-accumulates of the whole model, for inputs of ``sizes``.
        least_macs: Multiply-accumulates if all groups but one of every part are removed.
        fixed: Reasons why layers keep their channels, the most frequent first.
        sizes: Shapes of the inputs that the counts are for, by name.
    """

    refused: str = ""
    parts: tuple[PrunablePart, ...] = ()
    macs: int = 0
    least_macs: int = 0
    fixed: tuple[FixedReason, ...] = ()
    sizes: Mapping[str, tuple[int, ...]]


def find_prunable(model: Model, dims: Mapping[str, int]) -> PrunableStructure:
    """Find the prunable structure of a model in the graph that ``prune-channels`` would process.

    Args:
        model: ONNX, or TFLite, which is converted first.
        dims: Sizes of free dimensions by name; other free dimensions get arbitrary sizes.
    """
    try:
        proto = prepare(load_graph(model), OPSET)
        channels = find_channels(proto, _infer_input_shapes(proto, dims))
    except PassRefused as refusal:
        return PrunableStructure(refused=refusal.message, sizes={})
    return _describe_channels(channels)


def _infer_input_shapes(proto: ModelProto, dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs whose free dimensions have a size; the batch is one."""
    found = {}
    for value in proto.graph.input:
        kind = TypeProto()
        kind.CopyFrom(value.type)
        for axis, dim in enumerate(kind.tensor_type.shape.dim):
            name = name_dimension(value.name, axis, dim.dim_param)
            if not dim.HasField("dim_value") and (name in dims or axis == 0):
                dim.dim_value = dims.get(name, 1)
        shape = get_fixed_shape(kind)
        if shape is not None:
            found[value.name] = shape
    return found


def _describe_channels(channels: Channels) -> PrunableStructure:
    counted = _CostCounter(channels)
    stored = {t.name for t in channels.proto.graph.initializer}
    fed = [v.name for v in channels.proto.graph.input if v.name not in stored]
    layers = list_branches(channels.proto)
    parts = (*map(counted.part, channels.families), *map(counted.layer, layers))
    fixed = tuple(_iter_reasons(channels))
    return PrunableStructure(
        refused="" if parts else _explain_refusal(channels, fixed),
        parts=parts,
        macs=count_remaining_macs(channels),
        least_macs=counted.macs(_list_removable(channels), without=layers),
        fixed=fixed,
        sizes={name: channels.walk.size(name) for name in fed},
    )


def _explain_refusal(channels: Channels, fixed: Sequence[FixedReason]) -> str:
    if stores_integer_weights(channels.proto):
        return f"{QUANTIZED_ALREADY}: its weights are stored as integers"
    if not fixed:
        inside = describe_inner_layers(channels.walk.index)
        return inside or "no layer has stored weights"
    return f"{fixed[0].example}: {fixed[0].reason}"


def _list_removable(channels: Channels) -> list[int]:
    """List all groups but the first of each family, as far as they can be removed."""
    gone = [number for family in channels.families for number in family.groups[1:]]
    return select_removable(channels, gone)


@dataclass(frozen=True)
class _CostCounter:
    """Counter of the layers, multiply-accumulates and parameters of a graph."""

    channels: Channels

    def part(self, family: Family) -> PrunablePart:
        gone = family.groups[1:]
        places = self.channels.groups[family.groups[0]].places
        return PrunablePart(
            name=family.name,
            kind=family.kind,
            groups=len(family.groups),
            width=family.width,
            layers=len({get_node_key(place.node) for place in places if _is_layer(place)}),
            macs=count_remaining_macs(self.channels) - count_remaining_macs(self.channels, gone),
            parameters=self._count_parameters(()) - self._count_parameters(gone),
        )

    def layer(self, branch: Branch) -> PrunablePart:
        return PrunablePart(
            name=branch.name,
            kind="layers",
            groups=1,
            width=1,
            layers=sum(get_node_key(node) in branch.nodes for node in self._layers),
            macs=count_remaining_macs(self.channels) - self.macs((), without=[branch]),
            parameters=sum(
                math.prod(len(use.labels) for use in uses)
                for uses in self._tensors
                if get_node_key(uses[0].node) in branch.nodes
            ),
        )

    def macs(self, gone: Collection[int], *, without: Sequence[Branch]) -> int:
        """Count the multiply-accumulates left without the given groups and residual layers."""
        flags = self.channels.make_flags(gone)
        skipped = {name for branch in without for name in branch.nodes}
        return sum(
            product.constant
            * math.prod(
                int(self.channels.find_kept_by_flags(axis, flags).sum()) for axis in product.axes
            )
            for product in self.channels.walk.products
            if get_node_key(product.node) not in skipped
        )

    def _count_parameters(self, gone: Collection[int]) -> int:
        """Count the stored values that are left without the given groups."""
        flags = self.channels.make_flags(gone)
        return sum(
            math.prod(
                int(self.channels.find_kept_by_flags(use.labels, flags).sum()) for use in uses
            )
            for uses in self._tensors
        )

    @cached_property
    def _layers(self) -> list[NodeProto]:
        """Return the layers: nodes that multiply by a stored weight."""
        uses = [uses[0].node for uses in self._tensors]
        products = {get_node_key(product.node) for product in self.channels.walk.products}
        return list({get_node_key(n): n for n in uses if get_node_key(n) in products}.values())

    @cached_property
    def _tensors(self) -> list[list[Use]]:
        """Return the axes of each stored tensor at its first reader."""
        found: dict[str, dict[str, list[Use]]] = defaultdict(lambda: defaultdict(list))
        for use in self.channels.walk.uses:
            found[use.node.input[use.position]][f"{use.position}:{get_node_key(use.node)}"].append(
                use
            )
        return [next(iter(readers.values())) for readers in found.values()]


def _is_layer(place: TensorPart) -> bool:
    """Return whether a place is in a layer, not a follower; depthwise convolutions are layers."""
    return place.role != "along" or place.node.op_type == "Conv"


def _iter_reasons(channels: Channels) -> Iterator[FixedReason]:
    """Yield the reasons, merging those that differ only in names of nodes and values."""
    named = {n for node in channels.proto.graph.node for n in (node.name, *node.output)}
    alike: dict[str, list[FixedPart]] = defaultdict(list)
    for fixed in channels.fixed:
        words = (word for word in fixed.reason.split() if word not in named)
        alike[" ".join(words)].append(fixed)
    for found in sorted(alike.values(), key=len, reverse=True):
        first = found[0]
        yield FixedReason(layers=len(found), example=first.where, reason=first.reason)
