"""Relaxed reconstruction targets of layers in front of a Relu or Clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.compression.numerics import Doubles
from edgekit.compression.reconstruction.layer_targets import RefitTask
from edgekit.compression.reconstruction.least_squares import Fit
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import is_standard
from edgekit.onnx_graph.runs.activations import Values


@dataclass(frozen=True, kw_only=True)
class ClippedValue:
    """Value that only a Relu or Clip reads: the output of a layer, or of the sum behind it."""

    value: str
    low: float
    high: float

    def relax_targets(
        self, task: RefitTask, fit: Fit, rows: Doubles, targets: Doubles, wanted: Values
    ) -> Doubles:
        """Return targets [G, positions, O], relaxed wherever both the goal and the fit are cut off.

        Source: Zhang et al. 2015, "Efficient and Accurate Approximations of Nonlinear Convolutional
        Networks", section 3.2: the auxiliary values that are fitted in turn with the weight; here
        without their relaxation.

        Args:
            task: the layer.
            fit: the fit of the layer so far.
            rows: inputs of the layer, [G, positions, I].
            targets: outputs to reach, without the layer's bias and the other operand of a sum.
            wanted: values of the original.
        """
        value = task.layer.extract_outputs(wanted[self.value].astype(np.float32, copy=False))
        value = value if task.kept is None else value[:, task.kept]
        groups, outputs, _ = task.matrix.shape
        goal = value.astype(np.float64).reshape(-1, groups, outputs).transpose(1, 0, 2)
        if goal.shape != targets.shape:  # a sum with a broadcast operand
            return targets
        added = goal - targets
        made = rows @ fit.weight.transpose(0, 2, 1) + fit.shift[:, np.newaxis] + added
        eased = np.where(goal <= self.low, np.minimum(made, self.low), goal)
        eased = np.where(goal >= self.high, np.maximum(made, self.high), eased)
        return eased - added


def find_clipped_value(
    index: GraphIndex, task: RefitTask, *, residual: bool
) -> ClippedValue | None:
    """Find the Relu or Clip that is the only reader of a layer's output, or of the sum behind it.

    Args:
        index: the changed model.
        task: the layer.
        residual: whether the fit aims at the sum with the residual branch.

    Returns:
        ``None`` where there is another reader, or a bound of the Clip is computed.
    """
    value = task.residual.total if residual and task.residual else task.made
    reader = index.only_reader(value)
    if reader is None or not is_standard(reader):
        return None
    if reader.op_type == "Relu":
        return ClippedValue(value=value, low=0.0, high=np.inf)
    bounds = _read_bounds(index, reader) if reader.op_type == "Clip" else None
    return None if bounds is None else ClippedValue(value=value, low=bounds[0], high=bounds[1])


def _read_bounds(index: GraphIndex, clip: NodeProto) -> tuple[float, float] | None:
    """Return the stored bounds of a Clip; ``None`` where one is computed."""
    found = [-np.inf, np.inf]
    for place, name in enumerate(clip.input[1:]):
        stored = index.constant(name) if name else None
        if name and stored is None:
            return None
        if stored is not None:
            found[place] = float(stored.item())
    return found[0], found[1]
