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
        weight_position: index of the weight among the inputs of the node.
        groups: axes of the weight shared with the value and the output.
        outputs: axes of the weight shared with the output only.
        inputs: axes of the weight that are summed over.
        value_groups: axis of the value for each of ``groups``; ``None`` if it has none.
        value_inputs: axis of the value for each of ``inputs``.
        result_groups: axis of the output for each of ``groups``.
        result_outputs: axis of the output for each of ``outputs``.
        ones: axes of the weight of size 1, which broadcast over an axis of the value.
        linear: whether the output is the product itself; False for a recurrent layer.
        on_left: whether it is a MatMul with the weight on the left, so that the value may be a
            vector.
    """

    weight_position: int
    groups: Axes
    outputs: Axes
    inputs: Axes
    value_groups: tuple[int | None, ...]
    value_inputs: Axes
    result_groups: Axes
    result_outputs: Axes
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
        ordered = matrix.reshape([shape[a] for a in self._order])
        return np.ascontiguousarray(ordered.transpose(np.argsort(self._order)))

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
        value_axes = [a if a is not None and -a <= value.ndim else None for a in self.value_groups]
        for size, axis in zip(groups, value_axes, strict=True):
            if axis is None:
                value = np.broadcast_to(value, (size, *value.shape))  # counted from the end
        missing = sum(axis is None for axis in value_axes)
        fresh = iter(reversed(range(missing)))
        front = [next(fresh) if axis is None else axis % value.ndim for axis in value_axes]
        last = [axis % value.ndim for axis in self.value_inputs]
        middle = [a for a in range(value.ndim) if a not in front and a not in last]
        full_shape = list(value.shape)
        for size, axis in zip(groups, front, strict=True):
            full_shape[axis] = size
        value = np.broadcast_to(value, full_shape).transpose(*front, *middle, *last)
        positions = math.prod(full_shape[a] for a in middle)
        return value.reshape(math.prod(groups), positions, -1)

    def to_output_rows(self, value: NDArray[N]) -> NDArray[N]:
        """Return an output as [positions, G * O], in the order of ``to_input_rows``."""
        if self.on_left and value.ndim < len(self._order):  # the value was a vector
            value = value[..., np.newaxis]
        last = [a % value.ndim for a in (*self.result_groups, *self.result_outputs)]
        middle = [a for a in range(value.ndim) if a not in last]
        channels = math.prod(value.shape[a] for a in last)
        return value.transpose(*middle, *last).reshape(-1, channels)

    def get_bias_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape of a constant that adds one number to each output channel.

        ``None`` if the output has its channel axes in another order than the matrix.
        """
        axes = (*self.result_groups, *self.result_outputs)
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
    weight_position = stored.index(True)
    dims = index.initializers[node.input[weight_position]].dims
    rank = len(dims)
    if node.op_type == "MatMul" and rank >= 2:
        return _describe_matmul(weight_position, dims)
    if node.op_type == "Gemm" and weight_position == 0 and rank == 2:
        return _describe_gemm(node)
    if node.op_type == "Einsum" and len(node.input) == 2:
        return _describe_einsum(node, weight_position, rank)
    return None


def _describe_matmul(weight_position: int, dims: Sequence[int]) -> Contraction:
    rank = len(dims)
    batch = tuple(a for a in range(rank - 2) if dims[a] != 1)
    outer, inner = (rank - 2, rank - 1) if weight_position == 0 else (rank - 1, rank - 2)
    behind = tuple(a - rank for a in batch)
    return Contraction(
        weight_position=weight_position,
        groups=batch,
        outputs=(outer,),
        inputs=(inner,),
        value_groups=behind,
        value_inputs=(-2,) if weight_position == 0 else (-1,),
        result_groups=behind,
        result_outputs=(-2,) if weight_position == 0 else (-1,),
        ones=tuple(a for a in range(rank - 2) if dims[a] == 1),
        on_left=weight_position == 0,
    )


def _describe_gemm(node: NodeProto) -> Contraction | None:
    """Describe a Gemm whose weight is its left factor A; both factors may be transposed."""
    if read_attribute(node, "alpha", 1.0) != 1.0 or (len(node.input) > 2 and node.input[2]):
        return None
    turned = bool(read_attribute(node, "transA", 0))
    return Contraction(
        weight_position=0,
        groups=(),
        outputs=(1,) if turned else (0,),
        inputs=(0,) if turned else (1,),
        value_groups=(),
        value_inputs=(-1,) if read_attribute(node, "transB", 0) else (-2,),
        result_groups=(),
        result_outputs=(-2,),
    )


def _describe_einsum(node: NodeProto, weight_position: int, rank: int) -> Contraction | None:
    attribute = read_attribute(node, "equation", b"")
    if not isinstance(attribute, bytes) or b"..." in attribute or b"," not in attribute:
        return None
    ranks = [len(term.strip()) for term in attribute.decode().partition("->")[0].split(",")]
    terms = parse_equation(node, ranks)
    if terms is None or len(terms[0][weight_position]) != rank:
        return None
    weight_letters, value_letters, output_letters = (
        terms[0][weight_position],
        terms[0][1 - weight_position],
        terms[1],
    )
    letters = set(weight_letters)
    if not all(c in output_letters or c in value_letters for c in weight_letters) or not set(
        value_letters
    ) - letters <= set(output_letters):
        return None  # a factor alone sums over a letter
    groups = [c for c in weight_letters if c in output_letters and c in value_letters]
    outputs = [c for c in weight_letters if c in output_letters and c not in value_letters]
    inputs = [c for c in weight_letters if c not in output_letters]
    if not inputs or not outputs:
        return None
    return Contraction(
        weight_position=weight_position,
        groups=tuple(weight_letters.index(c) for c in groups),
        outputs=tuple(weight_letters.index(c) for c in outputs),
        inputs=tuple(weight_letters.index(c) for c in inputs),
        value_groups=tuple(value_letters.index(c) - len(value_letters) for c in groups),
        value_inputs=tuple(value_letters.index(c) - len(value_letters) for c in inputs),
        result_groups=tuple(output_letters.index(c) - len(output_letters) for c in groups),
        result_outputs=tuple(output_letters.index(c) - len(output_letters) for c in outputs),
    )


def _describe_recurrent(index: GraphIndex, node: NodeProto) -> Contraction | None:
    """Describe W [directions, gates, inputs]: all directions read the same input."""
    tensor = index.initializers.get(node.input[1])
    if tensor is None or len(tensor.dims) != 3 or node.input[0] in index.initializers:
        return None
    return Contraction(
        weight_position=1,
        groups=(0,),
        outputs=(1,),
        inputs=(2,),
        value_groups=(None,),
        value_inputs=(-1,),
        result_groups=(),
        result_outputs=(),
        linear=False,
    )
