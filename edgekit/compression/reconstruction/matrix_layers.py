"""Nodes with a stored weight as products of a matrix [G, O, I] and rows of inputs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgekit.compression.reconstruction.im2col import choose_position_stride, extract_windows
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.qdq_placement import WeightedNode
from edgekit.onnx_graph.rewrites.tensor_products import Contraction
from edgekit.onnx_graph.runs.activations import Values

# Number of samples that a batch of a product of any rank counts as: its first axis may be another.
_AT_ONCE = 16

Array = NDArray[np.float32]
N = TypeVar("N", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Node with a stored weight, as a matrix product.

    ``shape`` is that of the weight, ``axis`` that of its output channels. ``contraction`` is the
    product where it is none of Conv, ConvTranspose, Gemm or MatMul with a matrix on the right.
    """

    node: NodeProto
    shape: tuple[int, ...]
    axis: int
    contraction: Contraction | None = None

    @classmethod
    def from_weighted(cls, index: GraphIndex, weighted: WeightedNode) -> Layer:
        """Create the layer of a node with a stored weight."""
        shape = tuple(index.initializers[weighted.weight].dims)
        return cls(
            node=weighted.node,
            shape=shape,
            axis=weighted.axis,
            contraction=weighted.contraction,
        )

    @property
    def read(self) -> str:
        """Return the name of the value that the weight multiplies."""
        place = self.contraction.weight_position if self.contraction else 1
        name: str = self.node.input[1 - place]
        return name

    @property
    def groups(self) -> int:
        """Return the number of groups of a convolution or of a batched product; 1 otherwise."""
        if self.contraction is not None:
            return math.prod(self.shape[a] for a in self.contraction.groups)
        group = read_attribute(self.node, "group", 1)
        return int(group) if isinstance(group, int) and self._slides else 1

    @property
    def _slides(self) -> bool:
        return str(self.node.op_type) in ("Conv", "ConvTranspose")

    @property
    def _is_transposed(self) -> bool:
        return str(self.node.op_type) == "ConvTranspose"

    @property
    def input_key(self) -> Hashable:
        """Return a key that layers with the same inputs share: the value, and its windows."""
        node = self.node
        if self.contraction is not None:
            sizes = tuple(self.shape[a] for a in self.contraction.groups)
            return self.read, self.contraction.value_groups, self.contraction.value_inputs, sizes
        if not self._slides:
            return node.input[0], self.inputs
        window = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        return node.input[0], node.op_type, self.groups, self.inputs, self.shape[2:], *window

    @property
    def channels(self) -> int:
        """Return the number of output channels of all groups."""
        if self.contraction is not None:
            return self.groups * math.prod(self.shape[a] for a in self.contraction.outputs)
        return self.shape[self.axis] * (self.groups if self._is_transposed else 1)

    @property
    def inputs(self) -> int:
        """Return the number of inputs of one output value."""
        return math.prod(self.shape) // self.channels

    def matrix(self, weight: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return a weight as matrix [G, O, I]."""
        if self.contraction is not None:
            return self.contraction.matrix(weight).astype(np.float64)
        if self._is_transposed:
            kernel = weight.shape[2:]
            turned = np.flip(weight, tuple(range(2, weight.ndim)))
            turned = turned.reshape(self.groups, -1, weight.shape[1], *kernel).swapaxes(1, 2)
            rows = turned.reshape(self.groups, weight.shape[1], -1)
        else:
            rows = np.moveaxis(weight, self.axis, 0).reshape(self.groups, -1, self.inputs)
        return rows.astype(np.float64)

    def to_weight(self, matrix: NDArray[N]) -> NDArray[N]:
        """Return a matrix [G, O, I] in the shape of the weight."""
        if self.contraction is not None:
            return self.contraction.from_matrix(matrix, self.shape)
        if self._is_transposed:
            kernel = self.shape[2:]
            turned = matrix.reshape(self.groups, self.shape[1], -1, *kernel).swapaxes(1, 2)
            turned = np.flip(turned.reshape(self.shape), tuple(range(2, len(self.shape))))
            return np.ascontiguousarray(turned)
        moved = [self.shape[self.axis], *self.shape[: self.axis], *self.shape[self.axis + 1 :]]
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), 0, self.axis))

    def spread(self, scales: NDArray[N]) -> NDArray[N]:
        """Expand scales [G, O, 1] to a shape that multiplies the stored weight."""
        if self.contraction is None:
            return scales
        inputs = self.contraction.inputs
        sizes = tuple(1 if a in inputs else n for a, n in enumerate(self.shape))
        return self.contraction.from_matrix(scales, sizes)

    def select_kept(self, stays: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return a mask of the output channels that stay, from the masks of the weight's axes."""
        if self.contraction is not None:
            axes = (*self.contraction.groups, *self.contraction.outputs)
            return _combine_masks([stays[a] for a in axes])
        if self._is_transposed and self.groups > 1:
            groups: NDArray[np.bool_] = stays[0].reshape(self.groups, -1).max(axis=1)
            return _combine_masks([groups, stays[1]])
        return stays[self.axis]

    def get_output_shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """Return the output shape, given the shape ``whole`` of an output with other channels."""
        shape = list(whole)
        found = self.contraction
        if found is None:
            shape[1 if self._slides else -1] = self.channels
            return tuple(shape)
        own = (*found.groups, *found.outputs)
        for axis, mine in zip((*found.result_groups, *found.result_outputs), own, strict=True):
            shape[axis] = self.shape[mine]
        return tuple(shape)

    def extract_outputs(self, value: Array) -> Array:
        """Extract the positions of an output that match ``rows``, [positions, O]."""
        if self.contraction is not None:
            moved = self.contraction.to_output_rows(value)
            return moved[:: choose_position_stride(len(moved), _AT_ONCE)]
        last = np.moveaxis(value, 1 if self._slides else -1, -1)
        moved = last.reshape(math.prod(last.shape[:-1]), last.shape[-1])
        return moved[:: choose_position_stride(len(moved), max(1, value.shape[0]))]

    def read_rows(self, values: Values) -> Array:
        """Extract the inputs of the layer from the values of a batch, [G, positions, I].

        Raises:
            FloatingPointError: names the value, which is not finite.
        """
        value = values[self.read].astype(np.float32, copy=False)
        if not np.isfinite(value).all():
            raise FloatingPointError(self.read)
        return (
            self.rows(value) if value.size else np.zeros((self.groups, 0, self.inputs), np.float32)
        )

    def rows(self, value: Array) -> Array:
        """Extract the inputs of the layer from a value, [G, positions, I]."""
        if self._slides:
            return extract_windows(self.node, value, self.shape[2:], self.groups)
        if self.contraction is not None:
            flat = self.contraction.rows(value, self.shape)
            return flat[:, :: choose_position_stride(flat.shape[1], _AT_ONCE)]
        flat = value.reshape(1, -1, value.shape[-1])
        return flat[:, :: choose_position_stride(flat.shape[1], max(1, value.shape[0]))]

    def results(self, value: Array) -> Array:
        """Extract the outputs at the positions of ``rows``, [G, positions, O]."""
        made = self.extract_outputs(value)
        return made.reshape(len(made), self.groups, -1).transpose(1, 0, 2)


def _combine_masks(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Combine masks of several axes into one over all their positions, the last axis fastest."""
    stays = np.ones(1, np.bool_)
    for mask in masks:
        stays = np.logical_and.outer(stays, mask).ravel()
    return stays
