"""Update of shape constants (Reshape, Slice, Split ...) and means after channels were removed.

Shapes computed inside the graph keep the sizes from before the cut: the output of Shape is scaled
up to them, and the inputs that hold shapes are scaled down. Any arithmetic between the two stays
valid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgekit.compression.pruning.dependency import Channels
from edgekit.compression.pruning.dependency.equivalence import Axis
from edgekit.compression.pruning.dependency.ops.joining import to_python_slice
from edgekit.compression.pruning.dependency.propagation import get_integer, get_ints
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute

Flags = NDArray[np.bool_]
# Index of the input that holds the output shape, by operator type.
_SHAPED = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Resize": 3}


def update_shape_constants(channels: Channels, flags: Flags, index: GraphIndex) -> None:
    """Update every node that depends on the length or positions of a shortened axis, in place.

    Args:
        channels: dependency groups of the original model.
        flags: for each group whether it is removed, as ``Channels.make_flags`` returns.
        index: the copy of the model whose constants are cut already.
    """
    mender = _ShapeUpdater(channels, flags, index)
    nodes: list[NodeProto] = []
    for node in index.graph.node:
        nodes += mender.update_node(node)
    index.replace_nodes(nodes)


class _ShapeUpdater:
    """Rewriter that updates each node and adds the nodes it needs before and after it."""

    def __init__(self, channels: Channels, flags: Flags, index: GraphIndex) -> None:
        self.channels = channels
        self.flags = flags
        self.index = index
        self.counts = {(n.output[0], name): axis for n, name, axis in channels.walk.counts}
        self.picks: dict[str, list[Axis]] = {}
        for node, axis in channels.walk.picks:
            self.picks.setdefault(node.output[0], []).append(axis)
        self.means = {node.output[0]: axes for node, axes in channels.walk.means}

    def find_kept(self, axis: Axis) -> Flags:
        """Return for each position of an axis whether it is kept."""
        return self.channels.find_kept_by_flags(axis, self.flags)

    def ratio(self, axis: Axis) -> tuple[int, int]:
        """Return the numbers of kept and of original positions, in lowest terms."""
        stays = self.find_kept(axis)
        common = math.gcd(int(stays.sum()), len(stays))
        return int(stays.sum()) // common, len(stays) // common

    def update_node(self, node: NodeProto) -> list[NodeProto]:
        """Update one node; return it with the nodes to insert around it, in order."""
        for (output, name), axis in self.counts.items():
            if output == node.output[0]:
                self._set_attribute(node, name, int(self.find_kept(axis).sum()))
        if node.op_type in _SHAPED:
            return self._update_shape_input(node, _SHAPED[node.op_type])
        special: dict[str, Callable[[NodeProto], list[NodeProto]]] = {
            "Shape": self._restore_shape,
            "Split": self._update_split,
            "Slice": self._update_slice,
            "Gather": self._update_gather,
            "ReduceMean": self._rescale_mean,
            "GlobalAveragePool": self._rescale_mean,
            "LayerNormalization": self._update_layer_norm,
            "SkipLayerNormalization": self._update_layer_norm,
            "RMSNormalization": self._update_rms_norm,
            "SimplifiedLayerNormalization": self._update_rms_norm,
            "SkipSimplifiedLayerNormalization": self._update_rms_norm,
        }
        return special[node.op_type](node) if node.op_type in special else [node]

    @staticmethod
    def _set_attribute(node: NodeProto, name: str, value: int) -> None:
        for each in node.attribute:
            if each.name == name:
                each.i = value

    # ------------------------------------------------------------ shapes

    def _update_shape_input(self, node: NodeProto, position: int) -> list[NodeProto]:
        """Scale the shape that a node reads down to the kept sizes."""
        if len(node.input) <= position or not node.input[position]:
            return [node]
        axes = self.channels.walk.axes[node.output[0]]
        name = node.input[position]
        old = self.channels.walk.read_observed_integers(name)
        if old is None or len(old) > len(axes):
            return [node]
        named = get_ints(node, "axes", []) if node.op_type == "Resize" else []
        axes = [axes[a] for a in named] if named else axes[len(axes) - len(old) :]
        ratios = [self.ratio(a) if n > 1 else (1, 1) for a, n in zip(axes, old, strict=True)]
        copies = [n == 0 and not get_integer(node, "allowzero", 0) for n in old]
        stored = self.index.constant(name)
        if stored is not None:
            new = [
                int(self.find_kept(a).sum())
                if zero and not self.find_kept(a).all()
                else n * r[0] // r[1]
                for a, n, r, zero in zip(axes, old, ratios, copies, strict=True)
            ]
            if new != old:
                node.input[position] = self.index.add_constant(name, np.array(new, stored.dtype))
            return [node]
        if all(r == (1, 1) for r in ratios):
            return [node]
        scaled, nodes = self._scale_vector(name, ratios)
        node.input[position] = scaled
        return [*nodes, node]

    def _scale_vector(
        self, name: str, ratios: Sequence[tuple[int, int]]
    ) -> tuple[str, list[NodeProto]]:
        """Build nodes that multiply a computed vector by fractions with whole results."""
        product, quotient = self.index.fresh(name), self.index.fresh(name)
        times = self.index.add_constant(name, np.array([r[0] for r in ratios], np.int64))
        over = self.index.add_constant(name, np.array([r[1] for r in ratios], np.int64))
        return quotient, [
            helper.make_node("Mul", [name, times], [product]),
            helper.make_node("Div", [product, over], [quotient]),
        ]

    def _restore_shape(self, node: NodeProto) -> list[NodeProto]:
        """Scale the output of Shape up to the original sizes."""
        axes = self.channels.walk.axes.get(node.input[0])
        if axes is None:
            return [node]
        start, end = get_integer(node, "start", 0), get_integer(node, "end", len(axes))
        ratios = [self.ratio(axis)[::-1] for axis in axes[slice(start, end)]]
        if all(r == (1, 1) for r in ratios) or not self._is_changed_size_read(
            node.output[0], ratios
        ):
            return [node]
        bare = self.index.fresh(node.output[0])
        _, nodes = self._scale_vector(bare, ratios)
        nodes[-1].output[0] = node.output[0]
        node.output[0] = bare
        return [node, *nodes]

    def _is_changed_size_read(self, name: str, ratios: Sequence[tuple[int, int]]) -> bool:
        """Return whether a reader of a shape may use a size that changed."""
        if name in self.index.outputs or name in self.index.inner_reads:
            return True
        for reader in self.index.readers[name]:
            picked = (
                self.channels.walk.numbers(reader.input[1]) if reader.op_type == "Gather" else None
            )
            if picked is None or any(ratios[i] != (1, 1) for i in picked):
                return True
        return False

    # ------------------------------------------------------------ positions

    def _update_split(self, node: NodeProto) -> list[NodeProto]:
        """Store explicit lengths of the parts."""
        (axis,) = self.picks[node.output[0]]
        if self.find_kept(axis).all():
            return [node]
        walk, at = self.channels.walk, get_integer(node, "axis", 0)
        kept = self.find_kept(axis)
        sizes = [walk.size(name)[at] if name else 0 for name in node.output]
        lengths = [int(kept[start:stop].sum()) for start, stop in _compute_bounds(sizes)]
        others = [a for a in node.attribute if a.name not in ("num_outputs", "split")]
        del node.attribute[:]
        node.attribute.extend(others)
        del node.input[1:]
        node.input.append(self.index.add_constant("split", np.array(lengths, np.int64)))
        return [node]

    def _update_slice(self, node: NodeProto) -> list[NodeProto]:
        """Recompute the bounds of a Slice along the shortened axes."""
        cuts = [
            axis for axis in self.picks.get(node.output[0], []) if not self.find_kept(axis).all()
        ]
        if not cuts:
            return [node]
        walk = self.channels.walk
        axes = walk.get_axes(node, 0)
        starts, ends = walk.numbers(node.input[1]), walk.numbers(node.input[2])
        taken = walk.numbers(node.input[3]) if len(node.input) > 3 else None
        if starts is None or ends is None:
            raise KeyError(node.input[1])
        for k in range(len(starts)):
            axis = axes[(taken[k] if taken else k) % len(axes)]
            if any(axis is each for each in cuts):
                kept = self.find_kept(axis)
                part = to_python_slice(starts[k], ends[k], 1).indices(len(axis))
                starts[k] = int(kept[: part[0]].sum())
                ends[k] = starts[k] + int(kept[part[0] : part[1]].sum())
        for position, name in enumerate(node.input):
            numbers = {1: starts, 2: ends}.get(position) or walk.numbers(name)
            if position and numbers is not None:  # all of one type
                node.input[position] = self.index.add_constant(name, np.array(numbers, np.int64))
        return [node]

    def _update_gather(self, node: NodeProto) -> list[NodeProto]:
        """Renumber the positions that a Gather picks from a shortened axis."""
        for axis in self.picks.get(node.output[0], []):
            kept = self.find_kept(axis)
            picked = self.channels.walk.numbers(node.input[1])
            if kept.all() or picked is None:
                continue
            places = np.cumsum(kept) - 1
            new = [int(places[i]) for i in picked if kept[i]]
            node.input[1] = self.index.add_constant("picked", np.array(new, np.int64))
        return [node]

    # ------------------------------------------------------------ means

    def _compute_kept_share(self, node: NodeProto) -> float:
        """Return the kept part of the positions that a node averages over."""
        ratios = [self.ratio(axis) for axis in self.means.get(node.output[0], [])]
        return math.prod(kept / whole for kept, whole in ratios)

    def _rescale_mean(self, node: NodeProto) -> list[NodeProto]:
        """Scale a mean so that the removed zeros still count in the average."""
        share = self._compute_kept_share(node)
        if share == 1.0:
            return [node]
        name = node.output[0]
        node.output[0] = self.index.fresh(name)
        scaled = self._make_scaling(node.output[0], share, name)
        if name not in self.channels.walk.variances:
            return [node, scaled]
        # For a variance, the removed zeros are as far from the mean as the mean is from zero.
        scaled.output[0] = self.index.fresh(name)
        mean, square = self.channels.walk.variances[name], self.index.fresh(name)
        unseen = self._make_scaling(square, 1 - share, self.index.fresh(name))
        return [
            node,
            scaled,
            helper.make_node("Mul", [mean, mean], [square]),
            unseen,
            helper.make_node("Add", [scaled.output[0], unseen.output[0]], [name]),
        ]

    def _make_scaling(self, value: str, factor: float, output: str) -> NodeProto:
        scale = self.index.add_constant("share", np.array(factor, np.float32))
        return helper.make_node("Mul", [value, scale], [output])

    def _update_layer_norm(self, node: NodeProto) -> list[NodeProto]:
        """Pad the inputs with zeros, so that mean and variance are over the original length."""
        if self._compute_kept_share(node) == 1.0:
            return [node]
        (axis,) = self.means[node.output[0]]
        gone = int((~self.find_kept(axis)).sum())
        before: list[NodeProto] = []
        for position, name in enumerate(node.input):
            if name:
                node.input[position] = self._pad_with_zeros(name, gone, before)
        after = [
            self._trim_output(node, place, len(axis) - gone)
            for place, name in enumerate(node.output)
            if name and place in (0, 3)
        ]
        return [*before, node, *after]

    def _pad_with_zeros(self, name: str, more: int, nodes: list[NodeProto]) -> str:
        """Append zeros to the last axis of a value."""
        stored = self.index.constant(name)
        rank = len(self.channels.walk.size(name))
        if stored is not None:
            wide = np.pad(stored, [(0, 0)] * (rank - 1) + [(0, more)])
            return self.index.add_constant(name, wide)
        output = self.index.fresh(name)
        pads = self.index.add_constant("pads", np.array([0] * (2 * rank - 1) + [more], np.int64))
        nodes.append(helper.make_node("Pad", [name, pads], [output]))
        return output

    def _trim_output(self, node: NodeProto, place: int, length: int) -> NodeProto:
        """Cut the last axis of an output to a length; the result keeps the output's name."""
        name = node.output[place]
        node.output[place] = self.index.fresh(name)
        bounds = [
            self.index.add_constant(stem, np.array([number], np.int64))
            for stem, number in (("starts", 0), ("ends", length), ("axes", -1))
        ]
        return helper.make_node("Slice", [node.output[place], *bounds], [name])

    def _update_rms_norm(self, node: NodeProto) -> list[NodeProto]:
        """Correct the mean of squares for the removed zeros by scaling epsilon and the output.

        With a share r left, the original mean is r m for a new mean m, and x / sqrt(r m + e) is x /
        sqrt(m + e / r) / sqrt(r).
        """
        share = self._compute_kept_share(node)
        if share == 1.0:
            return [node]
        wide = _get_epsilon(node) / share
        others = [a for a in node.attribute if a.name != "epsilon"]
        del node.attribute[:]
        node.attribute.extend(others)
        node.attribute.append(helper.make_attribute("epsilon", wide))
        name = node.output[0]
        node.output[0] = self.index.fresh(name)
        return [node, self._make_scaling(node.output[0], share**-0.5, name)]


def _get_epsilon(node: NodeProto) -> float:
    default = 1e-12 if node.op_type.startswith("Skip") else 1e-5
    found = read_attribute(node, "epsilon", default)
    return found if isinstance(found, float) else default


def _compute_bounds(lengths: Sequence[int]) -> list[tuple[int, int]]:
    ends = np.cumsum(lengths).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))
