"""Products with one stored factor of any rank, on either side, as batched matrix products.

Shapes: G groups (batch axes of both factors and the output), O outputs, I inputs (summed over).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgekit.onnx_graph.einsum import parse_equation
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.operators import RECURRENT_OPS, is_standard

N = TypeVar("N", bound=np.generic)
Axes = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Contraction:
    """Contraction of a stored factor with a computed value.

    Axes of the weight are counted from the front, axes of values from the end: a value may have
    more leading axes than the weight, or fewer.

    Attributes:
        place: index of the weight among the inputs of the node.
        groups: axes of the weight shared with the value and the output.
        outputs: axes of the weight shared with the output only.
        inputs: axes of the weight that are summed over.
        read_groups: axis of the value for each of ``groups``; ``None`` if it has none.
        read_inputs: axis of the value for each of ``inputs``.
        made_groups: axis of the output for each of ``groups``.
        made_outputs: axis of the output for each of ``outputs``.
        ones: axes of the weight of size 1, which broadcast over an axis of the value.
        linear: whether the output is the product itself; False for a recurrent layer.
        on_left: whether it is a MatMul with the weight on the left, so that the value may be a
            vector.
    """

    place: int
    groups: Axes
    outputs: Axes
    inputs: Axes
    read_groups: tuple[int | None, ...]
    read_inputs: Axes
    made_groups: Axes
    made_outputs: Axes
    ones: Axes = ()
    linear: bool = True
    on_left: bool = False

    def matrix(self, weight: NDArray[N]) -> NDArray[N]:
        """Return the weight as [G, O, I]."""
        sizes = [
            math.prod(weight.shape[a] for a in axes)
            for axes in (self.groups, self.outputs, self.inputs)
        ]
        return weight.transpose(self._order).reshape(sizes)

    def from_matrix(self, matrix: NDArray[N], shape: tuple[int, ...]) -> NDArray[N]:
        """Return a matrix [G, O, I] as a weight of the given shape."""
        turned = matrix.reshape([shape[a] for a in self._order])
        return np.ascontiguousarray(turned.transpose(np.argsort(self._order)))

    @property
    def _order(self) -> Axes:
        return (*self.ones, *self.groups, *self.outputs, *self.inputs)

    def rows(self, value: NDArray[N], shape: tuple[int, ...]) -> NDArray[N]:
        """Return the value as [G, positions, I]; missing groups are broadcast.

        Args:
            value: the computed factor.
            shape: of the weight.
        """
        if self.on_left and value.ndim == 1:
            value = value[:, np.newaxis]
        groups = [shape[a] for a in self.groups]
        read = [a if a is not None and -a <= value.ndim else None for a in self.read_groups]
        for size, axis in zip(groups, read, strict=True):
            if axis is None:
                value = np.broadcast_to(value, (size, *value.shape))  # counted from the end
        missing = sum(axis is None for axis in read)
        fresh = iter(reversed(range(missing)))
        front = [next(fresh) if axis is None else axis % value.ndim for axis in read]
        last = [axis % value.ndim for axis in self.read_inputs]
        middle = [a for a in range(value.ndim) if a not in front and a not in last]
        wide = list(value.shape)
        for size, axis in zip(groups, front, strict=True):
            wide[axis] = size
        value = np.broadcast_to(value, wide).transpose(*front, *middle, *last)
        positions = math.prod(wide[a] for a in middle)
        return value.reshape(math.prod(groups), positions, -1)

    def to_output_rows(self, value: NDArray[N]) -> NDArray[N]:
        """Return an output as [positions, G * O], in the order of ``to_input_rows``."""
        if self.on_left and value.ndim < len(self._order):  # the value was a vector
            value = value[..., np.newaxis]
        last = [a % value.ndim for a in (*self.made_groups, *self.made_outputs)]
        middle = [a for a in range(value.ndim) if a not in last]
        channels = math.prod(value.shape[a] for a in last)
        return value.transpose(*middle, *last).reshape(-1, channels)

    def get_bias_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape of a constant that adds one number to each output channel.

        ``None`` if the output has its channel axes in another order than the matrix.
        """
        axes = (*self.made_groups, *self.made_outputs)
        if list(axes) != sorted(axes):
            return None
        sizes = dict(zip(axes, (shape[a] for a in (*self.groups, *self.outputs)), strict=True))
        return tuple(sizes.get(a, 1) for a in range(min(axes, default=-1), 0))


def describe_contraction(index: GraphIndex, node: NodeProto) -> Contraction | None:
    """Describe the contraction of a node with one stored factor; ``None`` for other nodes.

    Handled are MatMul of any rank with its weight on either side, Gemm with a weight on the left,
    Einsum of two factors, and the input weights of LSTM, GRU and RNN.
    """
    if not is_standard(node) or len(node.input) < 2:
        return None
    if node.op_type in RECURRENT_OPS:
        return _describe_recurrent(index, node)
    stored = [name in index.initializers for name in node.input[:2]]
    if sum(stored) != 1:
        return None
    place = stored.index(True)
    dims = index.initializers[node.input[place]].dims
    rank = len(dims)
    if node.op_type == "MatMul" and rank >= 2:
        return _describe_matmul(place, dims)
    if node.op_type == "Gemm" and place == 0 and rank == 2:
        return _describe_gemm(node)
    if node.op_type == "Einsum" and len(node.input) == 2:
        return _describe_einsum(node, place, rank)
    return None


def _describe_matmul(place: int, dims: Sequence[int]) -> Contraction:
    rank = len(dims)
    batch = tuple(a for a in range(rank - 2) if dims[a] != 1)
    outer, inner = (rank - 2, rank - 1) if place == 0 else (rank - 1, rank - 2)
    behind = tuple(a - rank for a in batch)
    return Contraction(
        place=place,
        groups=batch,
        outputs=(outer,),
        inputs=(inner,),
        read_groups=behind,
        read_inputs=(-2,) if place == 0 else (-1,),
        made_groups=behind,
        made_outputs=(-2,) if place == 0 else (-1,),
        ones=tuple(a for a in range(rank - 2) if dims[a] == 1),
        on_left=place == 0,
    )


def _describe_gemm(node: NodeProto) -> Contraction | None:
    """Describe a Gemm whose weight is its left factor A; both factors may be transposed."""
    if read_attribute(node, "alpha", 1.0) != 1.0 or (len(node.input) > 2 and node.input[2]):
        return None
    turned = bool(read_attribute(node, "transA", 0))
    return Contraction(
        place=0,
        groups=(),
        outputs=(1,) if turned else (0,),
        inputs=(0,) if turned else (1,),
        read_groups=(),
        read_inputs=(-1,) if read_attribute(node, "transB", 0) else (-2,),
        made_groups=(),
        made_outputs=(-2,),
    )


def _describe_einsum(node: NodeProto, place: int, rank: int) -> Contraction | None:
    written = read_attribute(node, "equation", b"")
    if not isinstance(written, bytes) or b"..." in written or b"," not in written:
        return None
    ranks = [len(term.strip()) for term in written.decode().partition("->")[0].split(",")]
    found = parse_equation(node, ranks)
    if found is None or len(found[0][place]) != rank:
        return None
    own, other, made = found[0][place], found[0][1 - place], found[1]
    letters = set(own)
    if not all(c in made or c in other for c in own) or not set(other) - letters <= set(made):
        return None  # a factor alone sums over a letter
    groups = [c for c in own if c in made and c in other]
    outputs = [c for c in own if c in made and c not in other]
    inputs = [c for c in own if c not in made]
    if not inputs or not outputs:
        return None
    return Contraction(
        place=place,
        groups=tuple(own.index(c) for c in groups),
        outputs=tuple(own.index(c) for c in outputs),
        inputs=tuple(own.index(c) for c in inputs),
        read_groups=tuple(other.index(c) - len(other) for c in groups),
        read_inputs=tuple(other.index(c) - len(other) for c in inputs),
        made_groups=tuple(made.index(c) - len(made) for c in groups),
        made_outputs=tuple(made.index(c) - len(made) for c in outputs),
    )


def _describe_recurrent(index: GraphIndex, node: NodeProto) -> Contraction | None:
    """Describe W [directions, gates, inputs]: all directions read the same input."""
    tensor = index.initializers.get(node.input[1])
    if tensor is None or len(tensor.dims) != 3 or node.input[0] in index.initializers:
        return None
    return Contraction(
        place=1,
        groups=(0,),
        outputs=(1,),
        inputs=(2,),
        read_groups=(None,),
        read_inputs=(-1,),
        made_groups=(),
        made_outputs=(),
        linear=False,
    )
