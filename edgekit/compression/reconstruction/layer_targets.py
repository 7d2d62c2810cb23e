"""Layers to refit: their inputs, target outputs, and stored weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from edgekit.compression.layers.stored_layers import find_bias
from edgekit.compression.numerics import Doubles
from edgekit.compression.reconstruction.least_squares import Fit
from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import BIASED_OPS
from edgekit.onnx_graph.qdq_placement import match_product
from edgekit.onnx_graph.runs.activations import Values

Kept = NDArray[np.bool_] | None
# Largest number of entries of a layer's second moments: 512 MiB for two sets of sums.
_MOST_ENTRIES = 1 << 25


@dataclass(frozen=True, kw_only=True)
class Residual:
    """Sum of a residual branch: an Add that is the only reader of a layer's output."""

    total: str
    other: str


@dataclass(frozen=True, kw_only=True)
class RefitTask:
    """Layer of the changed model to refit, with its values and names.

    ``made`` is its output with its bias, which both models have. ``bias`` is the stored constant,
    or zeros where the layer could have one.
    """

    layer: Layer
    weight: str
    matrix: Doubles
    bias: Doubles | None
    made: str
    holds_bias: bool  # whether ``made`` includes the bias
    kept: Kept
    residual: Residual | None

    @property
    def output(self) -> str:
        """Return the name of the node's output."""
        name: str = self.layer.node.output[0]
        return name

    @property
    def can_shift(self) -> bool:
        """Return whether the layer has a bias or can be given one."""
        return self.bias is not None

    @property
    def needs(self) -> list[str]:
        """Return the names of all values that the fit uses."""
        return [*self.present, self.made]

    @property
    def original_values(self) -> list[str]:
        """Return the names of the values of the original that the fit uses."""
        return [self.made, *([self.residual.total] if self.residual else [])]

    @property
    def present(self) -> list[str]:
        """Return the names of the values of the changed model that the fit uses."""
        read = self.layer.read
        return [read, *([self.residual.other] if self.residual else [])]

    def build_pairs(
        self, wanted: Values, present: Values, *, residual: bool
    ) -> tuple[Doubles, Doubles]:
        """Return the inputs [G, positions, I] and their target outputs [G, positions, O].

        Raises:
            FloatingPointError: names a value that is not finite.
        """
        read = self.layer.read
        rows = self.layer.rows(present[read].astype(np.float32, copy=False))
        target = self._compute_target(wanted, present, residual=residual)
        for name, each in ((read, rows), (self.made, target)):
            if not np.isfinite(each).all():
                raise FloatingPointError(name)
        if self.holds_bias and self.bias is not None:
            target = target - self.bias
        groups, outputs, _ = self.matrix.shape
        made = target.reshape(-1, groups, outputs).transpose(1, 0, 2)
        return rows.astype(np.float64), made

    def _compute_target(self, wanted: Values, present: Values, *, residual: bool) -> Doubles:
        """Return the target outputs at the positions of the rows, [positions, channels]."""
        whole = wanted[self.made]
        if not residual or self.residual is None:
            return self._extract_rows(whole, self.kept)
        total, other = wanted[self.residual.total], present[self.residual.other]
        # A sum with a smaller, broadcast operand is no residual branch.
        if total.shape != whole.shape or other.shape != self._get_shape(whole):
            return self._extract_rows(whole, self.kept)
        return self._extract_rows(total, self.kept) - self._extract_rows(other, None)

    def _extract_rows(self, value: NDArray[np.generic], kept: Kept) -> Doubles:
        rows = self.layer.extract_outputs(value.astype(np.float32, copy=False))
        return (rows if kept is None else rows[:, kept]).astype(np.float64)

    def _get_shape(self, whole: NDArray[np.generic]) -> tuple[int, ...]:
        """Return the layer's output shape where the original has the output ``whole``."""
        return self.layer.get_output_shape(whole.shape)

    def store(self, index: GraphIndex, fit: Fit) -> None:
        """Store the weight and bias of a fit."""
        node = index.producer[self.output]
        weighted = match_product(index, node)
        if weighted is None:
            raise KeyError(self.output)
        if self.bias is not None and fit.shift.any():
            found = find_bias(index, weighted)
            reader, place = found or (node, 2)
            bias = (self.bias + fit.shift.ravel()).astype(np.float32)
            if found:
                bias = bias.reshape(index.initializers[reader.input[place]].dims)
            _set_input(reader, place, index.add_constant("b", bias))
        weight = self.layer.contraction.weight_position if self.layer.contraction else 1
        node.input[weight] = index.add_constant(
            self.weight, self.layer.to_weight(fit.weight.astype(np.float32))
        )


def _set_input(node: NodeProto, place: int, name: str) -> None:
    if place < len(node.input):
        node.input[place] = name
    else:
        node.input.append(name)


def find_refit_tasks(
    original: ModelProto, changed: ModelProto, layers: Mapping[str, Kept]
) -> list[RefitTask]:
    """Find the layers of a changed model that can be refitted, in its order.

    Args:
        original: model with values of the same names.
        changed: the model.
        layers: masks of the original channels that are kept, by the output of the node.
    """
    index = GraphIndex(changed)
    known = {name for node in original.graph.node for name in node.output}
    tasks: list[RefitTask] = []
    sums: set[str] = set()
    for node in reversed(index.graph.node):  # of two added layers, the last corrects the sum
        if not node.output or node.output[0] not in layers:
            continue
        task = _build_task(index, node, layers[node.output[0]], known, sums)
        if task is not None:
            tasks.append(task)
            sums |= {task.residual.total} if task.residual else set()
    return tasks[::-1]


def _build_task(
    index: GraphIndex, node: NodeProto, kept: Kept, known: set[str], taken: set[str]
) -> RefitTask | None:
    weighted = match_product(index, node)
    if weighted is None or weighted.qdq_weight or index.only_reader(weighted.weight) is None:
        return None
    if weighted.contraction is not None and not weighted.contraction.linear:
        return None
    weight = index.float_constant(weighted.weight)
    layer = Layer.from_weighted(index, weighted)
    if layer.groups * layer.inputs**2 > _MOST_ENTRIES:
        return None
    found = find_bias(index, weighted)
    bias, made = None, node.output[0]
    if found is not None:
        reader, place = found
        bias = index.float_constant(reader.input[place]).astype(np.float64).ravel()
        if reader is not node and reader.output[0] in known:
            made = reader.output[0]
    elif node.op_type in BIASED_OPS:
        bias = np.zeros(layer.channels)
    if made not in known:
        return None
    residual = _find_residual(index, made, known)
    return RefitTask(
        layer=layer,
        weight=weighted.weight,
        matrix=layer.matrix(weight),
        bias=bias,
        made=made,
        holds_bias=found is not None and (found[0] is node or made != node.output[0]),
        kept=kept,
        residual=residual if residual and residual.total not in taken else None,
    )


def _find_residual(index: GraphIndex, made: str, known: set[str]) -> Residual | None:
    reader = index.only_reader(made)
    if reader is None or reader.op_type not in ("Add", "Sum") or len(reader.input) != 2:
        return None
    other = next((name for name in reader.input if name != made), None)
    if other is None or other in index.initializers or reader.output[0] not in known:
        return None
    return Residual(total=reader.output[0], other=other)
