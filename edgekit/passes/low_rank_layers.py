"""The layers of a graph that can be two thin ones, which of them are meant, and how each splits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from edgekit.errors import PassRefused
from edgekit.graphs.index import GraphIndex, attribute
from edgekit.graphs.observe import observe
from edgekit.graphs.placement import Weighted, as_weighted
from edgekit.graphs.rewrite import QUANTISED_ALREADY
from edgekit.graphs.shapes import known_shapes, with_shapes
from edgekit.passes.factors import Way, by_inputs, by_outputs, spatial
from edgekit.passes.grids import Doubles
from edgekit.passes.layer_inputs import Layer, Moments
from edgekit.passes.stored_layers import StoredLayer, bias_of
from edgekit.progress import Tick
from edgekit_agent.records import Samples

# A layer is split where at least a tenth of it goes: two nodes cost more than one.
_LARGEST_PART = 0.9
# Ranks that runtimes multiply without a rest.
ALIGNED = 8
# Second moments that are in memory at once, and the inputs that a layer's may be of.
_MOMENT_BYTES, _MOST_INPUTS = 1 << 30, 6144
_LISTED = 12
Of = Literal["parameters", "macs"]
_DOUBLE = 8


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a split layer has for each rank: parameters, and multiply-accumulates of one output."""

    parameters: int
    macs: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Whole:
    """A layer that may be split.

    ``names`` are those it may be called by. ``takes_mean`` says whether a bias can take up what
    its outputs lose on average; ``spatial`` is the price of a split along height and width, where
    the layer has both. ``positions`` are those at which one sample is multiplied.
    """

    stored: StoredLayer
    layer: Layer
    names: tuple[str, ...]
    takes_mean: bool
    channels: Price
    spatial: Price | None
    positions: int

    @property
    def outputs(self) -> int:
        """Output channels of a group."""
        return self.layer.shape[self.layer.axis] // self.layer.groups

    def bound(self, price: Price) -> float:
        """The rank at which nothing worth it is saved any more, of parameters or MACs."""
        size = self.stored.weight.size
        return _LARGEST_PART * size / max(price.parameters, price.macs)

    @property
    def prices(self) -> tuple[Price, ...]:
        """Of each way in which the layer can be split."""
        return (self.channels, self.spatial) if self.spatial else (self.channels,)

    @property
    def highest(self) -> float:
        """The rank below which it saves something."""
        return max(self.bound(price) for price in self.prices)

    @property
    def gains(self) -> bool:
        """Whether any rank saves anything."""
        return self.highest >= 1

    @property
    def large(self) -> bool:
        """Whether an aligned rank saves anything."""
        return self.highest >= ALIGNED

    @property
    def reads_outputs(self) -> bool:
        """Whether the moments of what the layer makes tell all, and are smaller."""
        return self.spatial is None and self.outputs <= self.layer.inputs

    @property
    def moment_size(self) -> int:
        """Sides of the moments that are gathered for it."""
        return self.outputs if self.reads_outputs else self.layer.inputs


@dataclass(frozen=True, kw_only=True)
class Split:
    """A layer and the way in which it is split best, with what each rank of that costs."""

    whole: Whole
    way: Way
    price: Price

    @property
    def name(self) -> str:
        """Of the weight."""
        return self.whole.stored.name

    @property
    def full(self) -> int:
        """The rank of the whole."""
        if self.price is self.whole.channels:
            return min(self.whole.outputs, self.whole.layer.inputs)
        outputs, inputs, height, width = self.whole.layer.shape
        return min(outputs * width, inputs * height)

    def weighs(self, of: Of) -> int:
        """Parameters of the whole, or its multiply-accumulates on one sample."""
        size = self.whole.stored.weight.size
        return size * self.whole.positions if of == "macs" else size

    def part(self, rank: int, of: Of) -> float:
        """What a rank keeps of them."""
        each = self.price.macs if of == "macs" else self.price.parameters
        return rank * each / self.whole.stored.weight.size

    def ranks(self, keep: float, of: Of) -> list[int]:
        """The ranks that save something: multiples of 8, and smaller ones where room is scarce."""
        most = min(int(self.whole.bound(self.price)), len(self.way.errors) - 1)
        aligned = list(range(ALIGNED, most + 1, ALIGNED))
        if aligned and self.part(ALIGNED, of) <= keep:
            return aligned
        return [*range(1, min(ALIGNED, most + 1)), *aligned]


def find_layers(index: GraphIndex) -> list[Whole]:
    """Every Conv, Gemm and MatMul with a float weight that nothing else reads.

    Raises:
        PassRefused: there is none.
    """
    found, kept = [], False
    shapes, _ = known_shapes(with_shapes(index.proto, {}))
    for node in index.graph.node:
        weighted = as_weighted(index, node)
        if weighted is None:
            continue
        kept |= weighted.kept is not None
        if weighted.kept is None and index.only_reader(weighted.weight) is node:
            found.append(_whole(index, weighted, shapes))
    if not found and kept:
        raise PassRefused(QUANTISED_ALREADY)
    if not found:
        raise PassRefused("no Conv, Gemm or MatMul with a finite float32 weight of its own")
    return found


def _whole(index: GraphIndex, weighted: Weighted, shapes: Mapping[str, tuple[int, ...]]) -> Whole:
    node = weighted.node
    weight = index.float_constant(weighted.weight)
    layer = Layer(node=node, shape=weight.shape, axis=weighted.axis)
    place = bias_of(index, weighted)
    outputs = weight.shape[weighted.axis]
    return Whole(
        stored=StoredLayer(name=weighted.weight, weight=weight, weighted=weighted, layer=layer),
        layer=layer,
        names=_names(weighted, place and (place[0].name, place[0].input[place[1]])),
        takes_mean=place is not None or node.op_type in ("Conv", "Gemm"),
        channels=Price(
            parameters=outputs + layer.groups * layer.inputs,
            macs=outputs + layer.groups * layer.inputs,
        ),
        spatial=_spatial_price(layer, shapes),
        positions=math.prod(shapes.get(node.output[0], ())) // outputs or 1,
    )


def _names(weighted: Weighted, bias: tuple[str, str] | None) -> tuple[str, ...]:
    """Of node, weight, value, and of the Add behind a product with its bias."""
    node = weighted.node
    names = (node.name, weighted.weight, node.output[0], *(bias or ()))
    return tuple(dict.fromkeys(name for name in names if name))


def _spatial_price(layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> Price | None:
    if layer.node.op_type != "Conv" or layer.groups > 1 or len(layer.shape) != 4:
        return None
    outputs, inputs, height, width = layer.shape
    if min(height, width) < 2 or layer.inputs > _MOST_INPUTS:
        return None
    read, made = (shapes.get(n) for n in (layer.node.input[0], layer.node.output[0]))
    strides = attribute(layer.node, "strides", [1, 1])
    wide = float(strides[1]) if isinstance(strides, list) else 1.0
    if read and made and len(read) == len(made) == 4 and made[3]:
        wide = read[3] / made[3]
    return Price(
        parameters=inputs * height + outputs * width,
        macs=wide * inputs * height + outputs * width,
    )


def chosen(layers: Sequence[Whole], patterns: Sequence[str]) -> tuple[list[Whole], list[Whole]]:
    """The layers that are meant and gain by a split, and those that a pattern means in vain.

    Raises:
        PassRefused: a pattern means none, or none of them gains; says which is nearest to it.
    """
    for pattern in patterns:
        if not any(_matches(layer, pattern) for layer in layers):
            raise PassRefused(
                f"layers: no Conv, Gemm or MatMul is called {pattern!r}", hint=_told(layers)
            )
    meant = [x for x in layers if not patterns or any(_matches(x, p) for p in patterns)]
    gaining = [x for x in meant if x.gains and x.moment_size <= _MOST_INPUTS]
    if not gaining:
        raise _no_gain(meant)
    if patterns:
        return gaining, [x for x in meant if x not in gaining]
    return [x for x in gaining if x.large] or gaining, []


def _matches(layer: Whole, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in layer.names)


def _told(layers: Sequence[Whole]) -> str:
    names = [layer.names[0] for layer in layers]
    return f"layers: {', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"


def _no_gain(layers: Sequence[Whole]) -> PassRefused:
    largest = max(layers, key=lambda x: x.stored.weight.size)
    sizes = " x ".join(map(str, largest.stored.weight.shape))
    told = f"the largest, {largest.names[0]} ({sizes})"
    if largest.gains:
        return PassRefused(
            f"no layer can be split: {told}, reads {largest.layer.inputs} inputs at once, more "
            f"than the {_MOST_INPUTS} whose moments are held in memory",
        )
    return PassRefused(
        f"no layer is smaller as two thin ones: {told}, needs a rank below "
        f"{largest.highest:.2f} to save parameters and multiply-accumulates",
    )


def split_layers(
    index: GraphIndex, layers: Sequence[Whole], parts: Sequence[Samples], keep: float, tick: Tick
) -> Iterator[Split]:
    """The best way of each layer at so many of its multiply-accumulates, by what it reads.

    Args:
        index: the graph.
        layers: of it.
        parts: samples; without any, the weights alone decide.
        keep: part of its multiply-accumulates at which the ways are compared.
        tick: told how many samples are done.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    if not parts:
        for whole in layers:
            size = whole.moment_size
            eye = np.broadcast_to(np.eye(size), (whole.layer.groups, size, size))
            if whole.reads_outputs:
                matrix = whole.stored.matrix
                eye = matrix @ matrix.transpose(0, 2, 1)
            yield _best(whole, eye, np.zeros((whole.layer.groups, size)), keep)
        return
    for some in _by_memory(layers):
        moments = _moments(index, some, parts, tick)
        for whole, seen in zip(some, moments, strict=True):
            yield _split(index, whole, seen, keep)


def _by_memory(layers: Sequence[Whole]) -> Iterator[list[Whole]]:
    """The layers in lots whose moments fit in memory together."""
    lot: list[Whole] = []
    held = 0
    for whole in layers:
        needed = _DOUBLE * whole.layer.groups * whole.moment_size**2
        if lot and held + needed > _MOMENT_BYTES:
            yield lot
            lot, held = [], 0
        lot.append(whole)
        held += needed
    yield lot


def _moments(
    index: GraphIndex, layers: Sequence[Whole], parts: Sequence[Samples], tick: Tick
) -> list[Moments]:
    read = [x.layer.node.output[0] if x.reads_outputs else x.layer.node.input[0] for x in layers]
    found = [
        Moments(
            square=np.zeros((x.layer.groups, x.moment_size, x.moment_size)),
            total=np.zeros((x.layer.groups, x.moment_size)),
        )
        for x in layers
    ]
    names = list(dict.fromkeys(read))
    for values in observe(index.proto, names, parts, tick=lambda n, of: tick("inputs", n, of)):
        for name, whole, moments in zip(read, layers, found, strict=True):
            value = values[name].astype(np.float32, copy=False)
            if not np.isfinite(value).all():
                raise FloatingPointError(name)
            if value.size:
                layer = whole.layer
                moments.add(layer.results(value) if whole.reads_outputs else layer.rows(value))
    for name, moments in zip(read, found, strict=True):
        moments.settle()
        if not np.isfinite(moments.square).all():
            raise FloatingPointError(name)
    return found


def _split(index: GraphIndex, whole: Whole, moments: Moments, keep: float) -> Split:
    mean, second = moments.mean, moments.square / max(moments.count, 1)
    if whole.takes_mean:
        second -= mean[:, :, None] * mean[:, None, :]
    else:
        mean = np.zeros_like(mean)
    if whole.reads_outputs and whole.takes_mean:
        weighted = whole.stored.weighted
        bias = weighted.bias if weighted else None
        if bias is not None:
            mean = mean - index.float_constant(bias).reshape(mean.shape)
    if not whole.reads_outputs:
        second = _towards_diagonal(second, moments.count)
    return _best(whole, second, mean, keep)


def _towards_diagonal(covariance: Doubles, count: int) -> Doubles:
    """Of fewer inputs than they have entries, all that was not seen would cost nothing.

    Source: Ledoit and Wolf 2004, as in ``Moments.hessian``.
    """
    inputs = covariance.shape[-1]
    share = inputs / (inputs + max(count, 1))
    diagonal = np.diagonal(covariance, axis1=1, axis2=2).copy()
    covariance = covariance * (1 - share)
    covariance[:, np.arange(inputs), np.arange(inputs)] += share * diagonal
    return covariance


def _best(whole: Whole, covariance: Doubles, mean: Doubles, keep: float) -> Split:
    matrix = whole.stored.matrix
    by = by_outputs if whole.reads_outputs else by_inputs
    plain = Split(whole=whole, way=by(matrix, covariance, mean), price=whole.channels)
    if whole.spatial is None or whole.bound(whole.spatial) < 1:
        return plain
    most = int(whole.bound(whole.spatial))
    way = spatial(whole.stored.weight.astype(np.float64), covariance[0], mean[0], most)
    if way is None:
        return plain
    other = Split(whole=whole, way=way, price=whole.spatial)
    if whole.bound(whole.channels) < 1:
        return other
    return min((plain, other), key=lambda split: _error_at(split, keep))


def _error_at(split: Split, keep: float) -> float:
    """The error at so many multiply-accumulates, between the ranks that come nearest."""
    rank = keep * math.prod(split.whole.layer.shape) / split.price.macs
    errors = split.way.errors
    return float(np.interp(rank, np.arange(len(errors)), errors))
