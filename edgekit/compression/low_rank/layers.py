"""Layers of a graph that can be factorized, and their selection by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain

from onnx import NodeProto

from edgekit.compression.layers.skip_reasons import explain_no_weights
from edgekit.compression.layers.stored_layers import StoredLayer, find_bias
from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.errors import PassRefused
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.qdq_placement import WeightedNode, match_product
from edgekit.onnx_graph.rewrites.prepare import QUANTIZED_ALREADY
from edgekit.onnx_graph.shape_inference import copy_with_shapes, read_shapes

# A layer is factorized if that saves at least a tenth of it, as two nodes cost more than one.
_LARGEST_PART = 0.9
# Runtimes multiply ranks that are multiples of this without padding.
ALIGNED = 8
SPLIT_OPS = ("Conv", "Gemm", "MatMul")
# Largest number of inputs whose second moments are gathered.
_MOST_INPUTS = 6144
_LISTED = 12


@dataclass(frozen=True, kw_only=True)
class Price:
    """Cost of a factorized layer per rank: parameters, and multiply-accumulates per output."""

    parameters: int
    macs: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SplittableLayer:
    """Layer that may be factorized.

    ``names`` are all names that a pattern may match. ``takes_mean`` tells whether a bias can take
    the mean error of its outputs. ``spatial`` is the price of factors along height and width,
    where the layer has both. ``positions`` is the number of positions at which one sample is
    multiplied. ``others`` are further layers with the same weight, which get the same factors.
    """

    stored: StoredLayer
    layer: Layer
    names: tuple[str, ...]
    takes_mean: bool
    channels: Price
    spatial: Price | None
    positions: int
    others: tuple[Layer, ...] = ()

    @property
    def outputs(self) -> int:
        """Return the number of output channels of a group."""
        return self.layer.channels // self.layer.groups

    def bound(self, price: Price) -> float:
        """Return the rank from which on too little is saved, of parameters or of MACs."""
        size = self.stored.weight.size
        return _LARGEST_PART * size / max(price.parameters, price.macs)

    @property
    def prices(self) -> tuple[Price, ...]:
        """Return the price of each way to factorize the layer."""
        return (self.channels, self.spatial) if self.spatial else (self.channels,)

    @property
    def highest(self) -> float:
        """Return the rank below which the layer saves something."""
        return max(self.bound(price) for price in self.prices)

    @property
    def can_save(self) -> bool:
        """Return whether any rank saves anything."""
        return self.highest >= 1

    @property
    def is_large(self) -> bool:
        """Return whether an aligned rank saves anything."""
        return self.highest >= ALIGNED

    @property
    def reads_outputs(self) -> bool:
        """Return whether the moments of the layer's outputs are sufficient, and smaller."""
        return self.spatial is None and not self.others and self.outputs <= self.layer.inputs

    @property
    def moment_size(self) -> int:
        """Return the side length of the moments that are gathered for the layer."""
        return self.outputs if self.reads_outputs else self.layer.inputs


def find_layers(index: GraphIndex) -> list[SplittableLayer]:
    """Find every Conv, Gemm and MatMul with a float weight that only layers of its kind read.

    Raises:
        PassRefused: there is none.
    """
    views: dict[str, list[WeightedNode]] = {}
    kept = False
    shapes, _ = read_shapes(copy_with_shapes(index.proto, {}))
    for node in index.graph.node:
        weighted = _find_splittable(index, node)
        if weighted is None or _multiplies_vector(weighted, shapes):
            continue
        kept |= weighted.qdq_weight is not None
        if weighted.qdq_weight is None:
            views.setdefault(weighted.weight, []).append(weighted)
    found = [
        _build_layer(index, readers, shapes)
        for name, readers in views.items()
        if _are_all_readers(index, name, readers)
    ]
    if not found and kept:
        raise PassRefused(QUANTIZED_ALREADY, quantized=True)
    if not found:
        reason = explain_no_weights(index.proto, ops=SPLIT_OPS)
        raise PassRefused(f"no layer can be factorized: {reason}")
    return found


def _are_all_readers(index: GraphIndex, name: str, readers: Sequence[WeightedNode]) -> bool:
    """Return whether only these layers, all of the same kind, read a weight."""
    forms = {
        (x.node.op_type, x.axis, x.contraction, read_attribute(x.node, "group", 1)) for x in readers
    }
    elsewhere = name in index.outputs or name in index.inner_reads
    return not elsewhere and len(forms) == 1 and len(index.readers[name]) == len(readers)


def _find_splittable(index: GraphIndex, node: NodeProto) -> WeightedNode | None:
    """Return the node as a layer that can be factorized, MatMul of any rank and side included."""
    found = match_product(index, node)
    if found is None or node.op_type == "ConvTranspose":
        return None
    return found if found.contraction is None or node.op_type == "MatMul" else None


def _multiplies_vector(weighted: WeightedNode, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether a batch of matrices multiplies a vector, for which two factors do not work."""
    if weighted.contraction is None or not weighted.contraction.groups:
        return False
    return (
        len(shapes.get(weighted.node.input[1 - weighted.contraction.weight_position], (0, 0))) == 1
    )


def _build_layer(
    index: GraphIndex, readers: Sequence[WeightedNode], shapes: Mapping[str, tuple[int, ...]]
) -> SplittableLayer:
    weighted = readers[0]
    node = weighted.node
    weight = index.float_constant(weighted.weight)
    layer = Layer.from_weighted(index, weighted)
    outputs = layer.channels
    places = [find_bias(index, each) for each in readers]
    names = [
        _list_names(each, place and (place[0].name, place[0].input[place[1]]))
        for each, place in zip(readers, places, strict=True)
    ]
    # Biases of several layers would have to compensate the mean of all of them.
    takes_mean = len(readers) == 1 and (bool(places[0]) or node.op_type in ("Conv", "Gemm"))
    made = [math.prod(shapes.get(each.node.output[0], ())) for each in readers]
    return SplittableLayer(
        stored=StoredLayer(name=weighted.weight, weight=weight, weighted=weighted, layer=layer),
        layer=layer,
        names=tuple(dict.fromkeys(chain.from_iterable(names))),
        takes_mean=takes_mean,
        channels=Price(
            parameters=outputs + layer.groups * layer.inputs,
            macs=outputs + layer.groups * layer.inputs,
        ),
        spatial=_compute_spatial_price(layer, shapes),
        positions=sum(each // outputs or 1 for each in made),
        others=tuple(Layer.from_weighted(index, each) for each in readers[1:]),
    )


def _list_names(weighted: WeightedNode, bias: tuple[str, str] | None) -> tuple[str, ...]:
    """List the names of node, weight and output, and of the Add behind a product with its bias."""
    node = weighted.node
    names = (node.name, weighted.weight, node.output[0], *(bias or ()))
    return tuple(dict.fromkeys(name for name in names if name))


def _compute_spatial_price(layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> Price | None:
    if layer.node.op_type != "Conv" or layer.groups > 1 or len(layer.shape) != 4:
        return None
    outputs, inputs, height, width = layer.shape
    if min(height, width) < 2 or layer.inputs > _MOST_INPUTS:
        return None
    read, made = (shapes.get(n) for n in (layer.node.input[0], layer.node.output[0]))
    strides = read_attribute(layer.node, "strides", [1, 1])
    wide = float(strides[1]) if isinstance(strides, list) else 1.0
    if read and made and len(read) == len(made) == 4 and made[3]:
        wide = read[3] / made[3]
    return Price(
        parameters=inputs * height + outputs * width,
        macs=wide * inputs * height + outputs * width,
    )


def choose_layers(
    layers: Sequence[SplittableLayer], patterns: Sequence[str]
) -> tuple[list[SplittableLayer], list[SplittableLayer]]:
    """Choose the selected layers that get smaller; return the other selected ones as well.

    Raises:
        PassRefused: a pattern matches none, or none of the layers gets smaller; the text names the
            largest.
    """
    for pattern in patterns:
        if not any(_matches(layer, pattern) for layer in layers):
            raise PassRefused(
                f"layers: no Conv, Gemm or MatMul matches {pattern!r}", hint=_format_names(layers)
            )
    meant = [x for x in layers if not patterns or any(_matches(x, p) for p in patterns)]
    gaining = [x for x in meant if x.can_save and x.moment_size <= _MOST_INPUTS]
    if not gaining:
        raise _build_no_gain_error(meant)
    if patterns:
        return gaining, [x for x in meant if x not in gaining]
    return [x for x in gaining if x.is_large] or gaining, []


def _matches(layer: SplittableLayer, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in layer.names)


def _format_names(layers: Sequence[SplittableLayer]) -> str:
    names = [layer.names[0] for layer in layers]
    return f"layers: {', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"


def _build_no_gain_error(layers: Sequence[SplittableLayer]) -> PassRefused:
    largest = max(layers, key=lambda x: x.stored.weight.size)
    sizes = " x ".join(map(str, largest.stored.weight.shape))
    told = f"the largest, {largest.names[0]} ({sizes})"
    if largest.can_save:
        return PassRefused(
            f"no layer can be factorized: {told}, has {largest.layer.inputs} inputs, more than "
            f"the {_MOST_INPUTS} whose second moments fit in memory",
        )
    return PassRefused(
        f"factorization reduces no layer: {told}, needs a rank below {largest.highest:.2f} "
        "to save parameters and MACs",
    )
