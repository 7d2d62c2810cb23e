"""Layers that read channels which may go, and how they make up for those that are gone.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value (channels of the group times kernel).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.graphs.channels import Channels
from edgekit.graphs.channels.atoms import Axis
from edgekit.graphs.cutting import cut
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import observe
from edgekit.graphs.placement import Weighted, as_weighted
from edgekit.passes.grids import Doubles
from edgekit.passes.layer_inputs import Layer, gather_moments
from edgekit.passes.stored_layers import StoredLayer, bias_of, replaced, shifted_bias
from edgekit.progress import Tick
from edgekit_agent.records import Samples

# Of the mean variance of an input: what was hardly seen is not made up for.
_RIDGE = 1e-3
# Of the share that ``Moments.hessian`` is drawn by: what is redundant must still look so.
_SHRUNK = 0.1
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A layer whose stored weight reads channels that may go.

    ``labels`` are those of its input channels, each of which takes ``kernel`` of its inputs.
    """

    layer: StoredLayer
    labels: Axis
    has_bias: bool

    @property
    def kernel(self) -> int:
        """Inputs that a channel takes."""
        return int(self.layer.matrix.shape[-1]) // len(self.labels)

    def inputs_of(self, channels: Channels, gone: Collection[int]) -> NDArray[np.bool_]:
        """Which of its inputs go, [I]."""
        return np.repeat(~channels.kept(self.labels, gone), self.kernel)

    def curvature(self) -> Doubles:
        """Second moments of the inputs, about their means where a bias can take these, [G, I, I].

        Drawn towards their diagonal where few inputs were seen, once they are about the means: no
        combination of inputs has less than no variance.
        """
        moments = self.layer.moments
        if moments is None:
            raise ValueError(f"{self.layer.name}: its inputs were not looked at")
        second = moments.square / max(moments.count, 1)
        if self.has_bias:
            mean = moments.mean
            second -= mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
        inputs = second.shape[-1]
        share = _SHRUNK * inputs / (inputs + max(moments.count, 1))
        diagonal = np.maximum(np.diagonal(second, axis1=1, axis2=2), 0.0)
        ridge = _RIDGE * diagonal.mean(axis=1, keepdims=True) + _TINY
        second *= 1 - share
        second[:, range(inputs), range(inputs)] += share * diagonal + ridge
        return second


def with_biases(proto: ModelProto) -> None:
    """Give convolutions and Gemms with a stored weight a bias of zeros where they have none."""
    index = GraphIndex(proto)
    for node in proto.graph.node:
        bare = node.op_type in ("Conv", "Gemm") and (len(node.input) < 3 or not node.input[2])
        weighted = as_weighted(index, node) if bare else None
        if weighted is not None:
            outputs = index.initializers[weighted.weight].dims[weighted.axis]
            name = index.add_constant(f"{node.output[0]}_bias", np.zeros(outputs, np.float32))
            del node.input[2:]
            node.input.append(name)


def find_readers(channels: Channels, parts: Sequence[Samples], tick: Tick) -> list[Reader]:
    """Every layer with a weight of its own that reads channels which may go, with its inputs.

    Args:
        channels: of the graph.
        parts: samples to run for what the layers read.
        tick: told how many are done.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    index = GraphIndex(channels.proto)
    found: dict[str, tuple[Weighted, Axis]] = {}
    for use in channels.walk.uses:
        if use.role != "reads" or use.position != 1 or not channels.members(use.labels).size:
            continue
        weighted = as_weighted(index, use.node)
        if weighted is None or weighted.kept or index.only_reader(weighted.weight) is None:
            continue
        found[weighted.weight] = weighted, use.labels
    layers = {
        name: Layer(node=w.node, shape=tuple(index.initializers[name].dims), axis=w.axis)
        for name, (w, _) in found.items()
    }
    read = list(dict.fromkeys(layer.node.input[0] for layer in layers.values()))
    stream = observe(channels.proto, read, parts, tick=lambda n, of: tick("inputs", n, of))
    moments = gather_moments(layers, stream) if layers else {}
    return [
        Reader(
            layer=StoredLayer(
                name=name,
                weight=index.float_constant(name),
                weighted=weighted,
                layer=layers[name],
                moments=moments[name],
            ),
            labels=labels,
            has_bias=bias_of(index, weighted) is not None,
        )
        for name, (weighted, labels) in found.items()
    ]


def cut_and_refit(
    channels: Channels, readers: Sequence[Reader], gone: Collection[int]
) -> ModelProto:
    """A model without these groups, each reader's weight refitted to what is left of its inputs.

    The inputs are those of the whole model, so that no layer knows what the ones before it lost.

    Source: least squares with the second moments of the inputs, as He et al. 2017, "Channel
    Pruning for Accelerating Very Deep Neural Networks".
    """
    proto = ModelProto()
    proto.CopyFrom(channels.proto)
    index = GraphIndex(proto)
    places = {node.output[0]: node for node in proto.graph.node}
    for reader in readers:
        out = reader.inputs_of(channels, gone)
        if out.any() and not out.all() and reader.layer.weighted is not None:
            matrix = _refitted(reader, out)
            error = reader.layer.matrix - matrix
            replaced(index, reader.layer.name, reader.layer.tensor(matrix.astype(np.float32)))
            if reader.has_bias:
                node = places[reader.layer.weighted.node.output[0]]
                here = replace(reader.layer, weighted=replace(reader.layer.weighted, node=node))
                shifted_bias(index, here, here.shift(error))
    return cut(replace(channels, proto=proto), gone)


def _refitted(reader: Reader, out: NDArray[np.bool_]) -> Doubles:
    """The weight with nothing for the inputs that go, and what makes up for them, [G, O, I]."""
    matrix, second = reader.layer.matrix, reader.curvature()
    kept = ~out
    cross = second[:, out][:, :, kept]  # [G, gone, kept]
    within = second[:, kept][:, :, kept]
    made = matrix.copy()
    made[:, :, out] = 0
    lost = matrix[:, :, out] @ cross
    made[:, :, kept] += np.linalg.solve(within, lost.transpose(0, 2, 1)).transpose(0, 2, 1)
    return made
