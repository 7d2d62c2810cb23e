"""Layers that read prunable channels, and their refit after channels are removed.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value (channels of the group times kernel).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.compression.layers.stored_layers import (
    StoredLayer,
    find_bias,
    replace_constant,
    shift_bias,
)
from edgekit.compression.numerics import TINY, Doubles
from edgekit.compression.pruning.dependency import Channels
from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.propagation import Use
from edgekit.compression.pruning.fixed_consumers import FixedReader, Powers, find_fixed_reads
from edgekit.compression.pruning.surgery import get_node_key, remove_groups
from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.compression.reconstruction.moments import Moments
from edgekit.compression.reconstruction.observed_moments import gather_moments
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import BIASED_OPS
from edgekit.onnx_graph.qdq_placement import WeightedNode, match_product
from edgekit.onnx_graph.runs.activations import observe
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

# Ridge relative to the mean variance of an input: inputs that hardly varied are not compensated.
_RIDGE = 1e-3
# Shrinkage relative to that of ``Moments.hessian``: redundant inputs must stay recognizable.
_SHRUNK = 0.1


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Layer whose stored weight reads prunable channels, and that can be refitted.

    ``labels`` are those of each axis that it sums over; each of their positions takes ``kernel``
    of its inputs. ``ties`` are further layers with the same weight. With ``blocks`` above 1, the
    labels are those of the groups of a transposed convolution one after another, all of which read
    the same positions of their own channels.
    """

    layer: StoredLayer
    labels: tuple[Axis, ...]
    has_bias: bool
    ties: tuple[StoredLayer, ...] = ()
    blocks: int = 1

    @property
    def kernel(self) -> int:
        """Return the number of inputs for each position of the axes."""
        positions = math.prod(len(labels) for labels in self.labels) // self.blocks
        return int(self.layer.matrix.shape[-1]) // max(positions, 1)

    def find_removed_inputs(self, channels: Channels, gone: Collection[int]) -> NDArray[np.bool_]:
        """Return a mask of the inputs that are removed with channel groups, [I]."""
        stays = np.ones(1, np.bool_)
        for labels in self.labels:
            kept = channels.find_kept(labels, gone).reshape(self.blocks, -1)
            # A group that is removed as a whole removes no inputs of the others.
            left = kept[kept.any(axis=1)]
            own = left[0] if len(left) else kept[0]
            stays = np.logical_and.outer(stays, own).ravel()
        return np.repeat(~stays, self.kernel)

    def places(self, channels: Channels) -> dict[int, NDArray[np.intp]]:
        """Find the inputs that are removed with each channel group."""
        sizes = [len(labels) // self.blocks for labels in self.labels]
        inputs = np.arange(math.prod(sizes) * self.kernel).reshape(*sizes, self.kernel)
        found: dict[int, list[NDArray[np.intp]]] = {}
        for axis, labels in enumerate(self.labels):
            members = channels.members(labels).reshape(self.blocks, len(labels) // self.blocks, -1)
            for position in range(members.shape[1]):
                shared = set.intersection(*(set(each) for each in members[:, position].tolist()))
                for group in shared - {-1}:
                    found.setdefault(group, []).append(inputs.take(position, axis=axis).ravel())
        return {group: np.unique(np.concatenate(parts)) for group, parts in found.items()}

    def compute_curvature(self) -> Doubles:
        """Compute the second moments of the inputs, centered if there is a bias, [G, I, I].

        They are shrunk towards their diagonal where few rows were seen, after the means are
        removed, so that no combination of inputs has a negative variance.
        """
        second, count = self._second_moments()
        inputs = second.shape[-1]
        share = _SHRUNK * inputs / (inputs + max(count, 1))
        diagonal = np.maximum(np.diagonal(second, axis1=1, axis2=2), 0.0)
        ridge = _RIDGE * diagonal.mean(axis=1, keepdims=True) + TINY
        second *= 1 - share
        second[:, range(inputs), range(inputs)] += share * diagonal + ridge
        return second

    def _second_moments(self) -> tuple[Doubles, int]:
        """Sum the second moments of all layers with this weight, centered; return the rows too."""
        total: Doubles = np.zeros(())
        count = 0
        for layer in (self.layer, *self.ties):
            moments = layer.moments
            if moments is None:
                raise ValueError(f"{layer.name}: no activations were recorded at its inputs")
            square = moments.square
            if self.has_bias:
                mean = moments.mean
                square = square - moments.count * mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
            total = total + square
            count += moments.count
        return total / max(count, 1), count


@dataclass(frozen=True, kw_only=True)
class Readers:
    """Readers of prunable channels: layers that can be refitted, and weights that cannot."""

    fitted: Sequence[Reader]
    fixed: Sequence[FixedReader] = ()

    def find_unrepaired(self, channels: Channels, gone: Collection[int]) -> list[FixedReader]:
        """Find the weights that lose inputs and are not refitted."""
        return [each for each in self.fixed if not channels.find_kept(each.labels, gone).all()]


def add_zero_biases(proto: ModelProto) -> None:
    """Add a zero bias to convolutions and Gemms with a stored weight that have none, in place."""
    index = GraphIndex(proto)
    for node in proto.graph.node:
        able = node.op_type in BIASED_OPS
        bare = able and (len(node.input) < 3 or not node.input[2])
        weighted = match_product(index, node) if bare else None
        if weighted is not None and weighted.contraction is None:
            outputs = Layer.from_weighted(index, weighted).channels
            name = index.add_constant(f"{node.output[0]}_bias", np.zeros(outputs, np.float32))
            del node.input[2:]
            node.input.append(name)


def find_readers(channels: Channels, parts: Sequence[Samples], tick: Tick) -> Readers:
    """Find every stored weight that reads prunable channels, with the moments of its inputs.

    Args:
        channels: channels of the graph.
        parts: samples to run for the inputs of the layers.
        tick: called with the number of samples done.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    index = GraphIndex(channels.proto)
    reads = [use for use in channels.walk.uses if use.role == "reads"]
    reads = [use for use in reads if channels.members(use.labels).size]
    found = _find_refittable(index, reads)
    layers = {
        f"{name}:{place}": Layer.from_weighted(index, weighted)
        for name, (readers, _) in found.items()
        for place, weighted in enumerate(readers)
    }
    powers = Powers(
        find_fixed_reads(channels, index, [u for u in reads if _get_weight_name(u) not in found])
    )
    wanted = [layer.read for layer in layers.values()] + [each.value for each in powers.reads]
    stream = observe(
        channels.proto,
        list(dict.fromkeys(wanted)),
        parts,
        tick=lambda n, of: tick("inputs", n, of),
    )
    moments = gather_moments(layers, powers.watch(stream)) if wanted else {}
    return Readers(
        fitted=[
            _build_reader(index, name, readers, labels, layers, moments)
            for name, (readers, labels) in found.items()
        ],
        fixed=powers.readers(),
    )


def _build_reader(
    index: GraphIndex,
    name: str,
    readers: Sequence[WeightedNode],
    labels: tuple[Axis, ...],
    layers: Mapping[str, Layer],
    moments: Mapping[str, Moments],
) -> Reader:
    stored = [
        StoredLayer(
            name=name,
            weight=index.float_constant(name),
            weighted=weighted,
            layer=layers[f"{name}:{place}"],
            moments=moments[f"{name}:{place}"],
        )
        for place, weighted in enumerate(readers)
    ]
    return Reader(
        layer=stored[0],
        labels=labels,
        has_bias=all(find_bias(index, weighted) is not None for weighted in readers),
        ties=tuple(stored[1:]),
        blocks=_count_blocks(stored[0]),
    )


def _count_blocks(stored: StoredLayer) -> int:
    """Return the number of groups of a transposed convolution, whose channels follow each other."""
    layer = stored.layer
    transposed = layer is not None and layer.node.op_type == "ConvTranspose"
    return layer.groups if layer is not None and transposed else 1


def _get_weight_name(use: Use) -> str:
    name: str = use.node.input[use.position]
    return name


def _find_refittable(
    index: GraphIndex, reads: Sequence[Use]
) -> dict[str, tuple[list[WeightedNode], tuple[Axis, ...]]]:
    """Find weights that only layers of one kind read, with the labels of their summed axes.

    Several layers with the same weight are refitted together.
    """
    found: dict[str, tuple[list[WeightedNode], tuple[Axis, ...]]] = {}
    for use in reads:
        name = _get_weight_name(use)
        if name in found or name in index.outputs or name in index.inner_reads:
            continue
        views = [match_product(index, node) for node in index.readers[name]]
        views = [view for view in views if view is not None and view.weight == name]
        whole = [view for view in views if view is not None and view.qdq_weight is None]
        if len(whole) < len(index.readers[name]) or not _have_same_form(index, whole):
            continue
        labels = _find_summed_labels(
            index, whole[0], [u for u in reads if get_node_key(u.node) == get_node_key(use.node)]
        )
        if labels is not None:
            found[name] = whole, labels
    return found


def _have_same_form(index: GraphIndex, views: Sequence[WeightedNode]) -> bool:
    """Return whether layers view their weight as the same matrix."""
    kinds = {
        (
            view.node.op_type == "ConvTranspose",
            Layer.from_weighted(index, view).groups,
            view.axis,
            view.contraction and (view.contraction.groups, view.contraction.inputs),
        )
        for view in views
    }
    return len(kinds) == 1


def _find_summed_labels(
    index: GraphIndex, view: WeightedNode, uses: Sequence[Use]
) -> tuple[Axis, ...] | None:
    """Return the labels of each axis that a layer sums over, in the order of its inputs."""
    by_axis = {use.axis: use.labels for use in uses if _get_weight_name(use) == view.weight}
    if view.contraction is not None:
        axes = view.contraction.inputs
        return tuple(by_axis[a] for a in axes) if all(a in by_axis for a in axes) else None
    rank = len(index.initializers[view.weight].dims)
    if view.node.op_type == "ConvTranspose":
        labels = by_axis.get(0)
        return None if labels is None else (labels,)
    axis = 1 if view.node.op_type == "Conv" or (rank == 2 and view.axis == 0) else 0
    return (by_axis[axis],) if axis in by_axis else None


def cut_and_refit(
    channels: Channels, readers: Sequence[Reader], gone: Collection[int]
) -> ModelProto:
    """Remove channel groups and refit the weight of each reader to its remaining inputs.

    The moments of the inputs are those of the whole model, so no layer accounts for the losses of
    the layers before it.

    Source: least squares with the second moments of the inputs, as He et al. 2017, "Channel
    Pruning for Accelerating Very Deep Neural Networks".

    Args:
        channels: channels of the model, which is not changed.
        readers: the layers to refit.
        gone: the channel groups to remove.
    """
    proto = ModelProto()
    proto.CopyFrom(channels.proto)
    index = GraphIndex(proto)
    places = {get_node_key(node): node for node in proto.graph.node}
    for reader in readers:
        out = reader.find_removed_inputs(channels, gone)
        if not out.any() or out.all():
            continue
        matrix = _refit_weight(reader, out)
        error = reader.layer.matrix - matrix
        replace_constant(index, reader.layer.name, reader.layer.tensor(matrix.astype(np.float32)))
        for layer in (reader.layer, *reader.ties) if reader.has_bias else ():
            if layer.weighted is not None:
                node = places[get_node_key(layer.weighted.node)]
                here = replace(layer, weighted=replace(layer.weighted, node=node))
                shift_bias(index, here, here.shift(error))
    return remove_groups(replace(channels, proto=proto), gone)


def _refit_weight(reader: Reader, out: NDArray[np.bool_]) -> Doubles:
    """Return the weight [G, O, I] with zeros for removed inputs, refitted to the other inputs."""
    matrix, second = reader.layer.matrix, reader.compute_curvature()
    kept = ~out
    cross = second[:, out][:, :, kept]  # [G, gone, kept]
    within = second[:, kept][:, :, kept]
    made = matrix.copy()
    made[:, :, out] = 0
    lost = matrix[:, :, out] @ cross
    made[:, :, kept] += np.linalg.solve(within, lost.transpose(0, 2, 1)).transpose(0, 2, 1)
    return made
