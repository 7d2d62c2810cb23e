"""Least-squares reconstruction: repair of a changed model in closed form, without labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.compression.output_divergence import Reference
from edgekit.compression.reconstruction.activation_cache import Replay
from edgekit.compression.reconstruction.layer_targets import RefitTask, find_refit_tasks
from edgekit.compression.reconstruction.least_squares import Fit, fit_least_squares
from edgekit.compression.reconstruction.moments import Moments
from edgekit.compression.reconstruction.relu_targets import ClippedValue, find_clipped_value
from edgekit.compression.reconstruction.stages import can_repeat, plan_stages
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.runs.activations import Values
from edgekit.onnx_graph.subgraph import find_upstream
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

# Number of fits of a layer behind which a Relu or Clip cuts values off, where runs are cheap: the
# values that are cut off come from the last fit.
_TURNS = 3
# Divergence above which the outputs are lost, so that they cannot judge a stage.
_LOST = 1.0
# The last of every this many batches is held out, to choose a ridge.
_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class RefitLayer:
    """Layer to refit.

    Attributes:
        output: name of the node's output, in both models.
        kept: mask of the original output channels that are left, in order; ``None`` = all.
    """

    output: str
    kept: NDArray[np.bool_] | None = None


def refit(
    original: ModelProto,
    changed: ModelProto,
    layers: Sequence[RefitLayer],
    parts: Sequence[Samples],
    *,
    held_out: Sequence[Samples],
    tick: Tick,
    stages: int | None = None,
) -> ModelProto:
    """Refit a changed model's layers to reproduce the original activations, and return a copy.

    The layers are refitted stage by stage in the graph's order, each with the inputs that the
    refitted layers before it give: argmin ||W' x' + b' - y||² near the present weight, with x' the
    layer's inputs in the changed model and y its outputs in the original. A layer in a residual
    branch may also make up for the error of the other operand of the sum. A stage that makes the
    outputs on held-out samples worse is undone, unless the outputs are lost anyway; all stages are
    undone if the result is worse than the start.

    Source: He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks",
    section 3.2, for whole and residual models.

    Args:
        original: float; not changed.
        changed: the same with channels removed, layers factorized or weights changed; not changed.
        layers: Conv, Gemm or MatMul with a stored weight of their own. Other layers stay unchanged,
            as do layers with too many inputs for the sums (``refit_layers``).
        parts: samples to fit on.
        held_out: samples to judge by.
        tick: called with the number of stages done.
        stages: largest number of stages, each a run of both models; ``None`` = as many as
            ``plan_stages`` considers worth it.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    reference = Reference(original, held_out)
    work, least = changed, _measure_divergence(reference, changed)
    first = least
    kept = {layer.output: layer.kept for layer in layers}
    plan = plan_stages(changed, find_refit_tasks(original, changed, kept), parts, most=stages)
    runs = _Runs(original=original, parts=parts)
    turns = _TURNS if can_repeat(changed, plan, parts, _TURNS) else 1
    for number, stage in enumerate(plan):
        tick("refitting", number, len(plan))
        tasks = _update_tasks(original, work, stage)
        later = list(chain.from_iterable(plan[number + 1 :]))
        made = _refit_stage(work, tasks, runs, later, turns)
        if made is None:
            continue
        found = _measure_divergence(reference, made)
        if found <= least or min(found, least) > _LOST:
            work, least = made, found
    tick("refitting", len(plan), len(plan))
    if work is changed or least > first:
        work = ModelProto()
        work.CopyFrom(changed)
    return work


def _measure_divergence(reference: Reference, proto: ModelProto) -> float:
    """Measure the divergence of the outputs; 0 for integer outputs, which tell too little."""
    return reference.divergence(proto) if reference.has_outputs else 0.0


class _Runs:
    """Runs of both models over the same samples."""

    def __init__(self, *, original: ModelProto, parts: Sequence[Samples]) -> None:
        self._original = original
        self._wanted, self._present = Replay(parts), Replay(parts)

    def iter_values(
        self, work: ModelProto, tasks: Sequence[RefitTask], later: Sequence[RefitTask]
    ) -> Iterator[tuple[Values, Values]]:
        """Yield the values of both models around these layers by batch; ``later`` layers follow."""
        unsettled = [task.output for task in (*tasks, *later)]
        return zip(
            self._wanted.values(
                self._original,
                _merge_names(task.original_values for task in tasks),
                later=_merge_names(task.original_values for task in later),
                unsettled=(),
            ),
            self._present.values(
                work,
                _merge_names(task.present for task in tasks),
                later=_merge_names(task.present for task in later),
                unsettled=unsettled,
            ),
            strict=True,
        )


def _merge_names(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(lists)))


def _update_tasks(
    original: ModelProto, work: ModelProto, stage: Sequence[RefitTask]
) -> list[RefitTask]:
    """Rebuild the tasks of a stage from the current weights, with the residuals found before."""
    residuals = {task.output: task.residual for task in stage}
    kept = {task.output: task.kept for task in stage}
    return [
        replace(t, residual=residuals[t.output]) for t in find_refit_tasks(original, work, kept)
    ]


def _refit_stage(
    work: ModelProto,
    tasks: Sequence[RefitTask],
    runs: _Runs,
    later: Sequence[RefitTask],
    turns: int,
) -> ModelProto | None:
    """Return a copy with these layers refitted; ``None`` where no fit is better."""
    before = GraphIndex(work)
    feeding = _find_residual_fits(before, tasks)
    cutoffs = {t.output: find_clipped_value(before, t, residual=t.output in feeding) for t in tasks}
    fits: dict[str, Fit] = {}
    turns = turns if any(cutoffs.values()) else 1
    for turn in range(turns):
        ahead = later if turn == turns - 1 else [*tasks, *later]
        fitting = [task for task in tasks if turn == 0 or cutoffs[task.output]]
        stream = runs.iter_values(work, tasks, ahead)
        fits |= _fit_layers(fitting, stream, feeding, cutoffs, fits)
    if not fits:
        return None
    made = ModelProto()
    made.CopyFrom(work)
    index = GraphIndex(made)
    for task in tasks:
        if task.output in fits:
            task.store(index, fits[task.output])
    index.drop_unread_constants()
    return made


def _fit_layers(
    tasks: Sequence[RefitTask],
    stream: Iterable[tuple[Values, Values]],
    feeding: Collection[str],
    cutoffs: Mapping[str, ClippedValue | None],
    known: Mapping[str, Fit],
) -> dict[str, Fit]:
    """Fit layers, and return the improvements by output; known fits tell the values cut off."""
    sums = [(_create_sums(task), _create_sums(task)) for task in tasks]
    for number, (wanted, present) in enumerate(stream):
        judging = number % _BATCHES == _BATCHES - 1
        for task, pair in zip(tasks, sums, strict=True):
            rows, targets = task.build_pairs(wanted, present, residual=task.output in feeding)
            cutoff, fit = cutoffs[task.output], known.get(task.output)
            if cutoff is not None and fit is not None:
                targets = cutoff.relax_targets(task, fit, rows, targets, wanted)
            if rows.shape[1] == targets.shape[1]:  # unequal where positions were removed as well
                pair[judging].add(rows, targets)
    found = {
        task.output: fit_least_squares(task.matrix, learning, judging_sums, biased=task.can_shift)
        for task, (learning, judging_sums) in zip(tasks, sums, strict=True)
    }
    return {name: fit for name, fit in found.items() if fit is not None and _is_finite(fit)}


def _is_finite(fit: Fit) -> bool:
    return bool(np.isfinite(fit.weight).all() and np.isfinite(fit.shift).all())


def _create_sums(task: RefitTask) -> Moments:
    groups, outputs, inputs = task.matrix.shape
    return Moments.create_empty(groups, inputs, outputs)


def _find_residual_fits(index: GraphIndex, tasks: Sequence[RefitTask]) -> set[str]:
    """Find the layers to fit to their residual sum: no other one affects the other operand."""
    made = {task.output for task in tasks}
    return {
        task.output
        for task in tasks
        if task.residual
        and not (made - {task.output}) & find_upstream(index, [task.residual.other])
    }
