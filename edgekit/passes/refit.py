"""Closed-form repair of a changed model against the original: no labels, no gradients."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.graphs.divergence import Reference
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import Values
from edgekit.graphs.upstream import upstream
from edgekit.passes.cutoffs import Cutoff, cutoff_of
from edgekit.passes.least_squares import Fit, Sums, fitted
from edgekit.passes.refit_layers import Task, tasks_of
from edgekit.passes.refit_stages import can_repeat, planned
from edgekit.passes.replay import Replay
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

# Times that a layer is fitted whose output is cut off by a Relu or Clip, where runs are cheap:
# what that hides is told from the last fit.
_TURNS = 3
# A divergence at which the outputs say nothing of the original's, nor of what is gained inside.
_LOST = 1.0
# Of so many batches the last is set apart, to choose a ridge by.
_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """A layer to repair.

    Attributes:
        output: name of what its node makes, in both models.
        kept: which output channels of the original's are left, in order; ``None`` = all.
    """

    output: str
    kept: NDArray[np.bool_] | None = None


def refit(
    original: ModelProto,
    changed: ModelProto,
    layers: Sequence[Refitted],
    parts: Sequence[Samples],
    *,
    held_out: Sequence[Samples],
    tick: Tick,
    stages: int | None = None,
) -> ModelProto:
    """A copy of ``changed`` whose layers make, of what they read there, what the original makes.

    One stage of layers after the other, in the graph's order, each seeing what those before it
    make by then: argmin ||W' x' + b' - y||² near the present weight, x' what the layer reads in
    the changed model, y what the original makes. A layer that is only added to something makes up
    for what the other lacks. A stage that makes the outputs on held-out samples worse is
    undone, unless they are lost anyway; and all of it where it ends up worse than it began.

    Source: He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks",
    section 3.2, for whole and residual models.

    Args:
        original: float; not changed.
        changed: the same with channels cut out, layers split or weights changed; not changed.
        layers: Conv, Gemm or MatMul with a stored weight that nothing else reads; others stay as
            they are, as do those with more inputs than sums can be kept of (``refit_layers``).
        parts: samples to fit on.
        held_out: others, to judge by.
        tick: told how many stages are done.
        stages: how many at most, each a run of both models; ``None`` = as many as ``planned``
            takes for worth it.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    reference = Reference(original, held_out)
    work, least = changed, _divergence(reference, changed)
    first = least
    kept = {layer.output: layer.kept for layer in layers}
    plan = planned(changed, tasks_of(original, changed, kept), parts, most=stages)
    runs = _Runs(original=original, parts=parts)
    turns = _TURNS if can_repeat(changed, plan, parts, _TURNS) else 1
    for number, stage in enumerate(plan):
        tick("refitting", number, len(plan))
        tasks = _anew(original, work, stage)
        later = list(chain.from_iterable(plan[number + 1 :]))
        made = _improved(work, tasks, runs, later, turns)
        if made is None:
            continue
        found = _divergence(reference, made)
        if found <= least or min(found, least) > _LOST:
            work, least = made, found
    tick("refitting", len(plan), len(plan))
    if work is changed or least > first:
        work = ModelProto()
        work.CopyFrom(changed)
    return work


def _divergence(reference: Reference, proto: ModelProto) -> float:
    """That of the outputs; none where they are integers, which tell of too little."""
    return reference.divergence(proto) if reference.can_tell else 0.0


class _Runs:
    """Runs of both models over the same samples."""

    def __init__(self, *, original: ModelProto, parts: Sequence[Samples]) -> None:
        self._original = original
        self._wanted, self._present = Replay(parts), Replay(parts)

    def of(
        self, work: ModelProto, tasks: Sequence[Task], later: Sequence[Task]
    ) -> Iterator[tuple[Values, Values]]:
        """What both make around these layers, batch by batch, ``later`` ones being next."""
        unsettled = [task.output for task in (*tasks, *later)]
        return zip(
            self._wanted.values(
                self._original,
                _names(task.wanted for task in tasks),
                later=_names(task.wanted for task in later),
                unsettled=(),
            ),
            self._present.values(
                work,
                _names(task.present for task in tasks),
                later=_names(task.present for task in later),
                unsettled=unsettled,
            ),
            strict=True,
        )


def _names(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(lists)))


def _anew(original: ModelProto, work: ModelProto, stage: Sequence[Task]) -> list[Task]:
    """The layers of a stage as they are by now, with the sums that were found for them."""
    residuals = {task.output: task.residual for task in stage}
    kept = {task.output: task.kept for task in stage}
    return [replace(t, residual=residuals[t.output]) for t in tasks_of(original, work, kept)]


def _improved(
    work: ModelProto, tasks: Sequence[Task], runs: _Runs, later: Sequence[Task], turns: int
) -> ModelProto | None:
    """A copy with these layers fitted; ``None`` where nothing can be bettered."""
    before = GraphIndex(work)
    feeding = _feeding(before, tasks)
    cutoffs = {t.output: cutoff_of(before, t, residual=t.output in feeding) for t in tasks}
    fits: dict[str, Fit] = {}
    turns = turns if any(cutoffs.values()) else 1
    for turn in range(turns):
        ahead = later if turn == turns - 1 else [*tasks, *later]
        fitting = [task for task in tasks if turn == 0 or cutoffs[task.output]]
        stream = runs.of(work, tasks, ahead)
        fits |= _fits(fitting, stream, feeding, cutoffs, fits)
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


def _fits(
    tasks: Sequence[Task],
    stream: Iterable[tuple[Values, Values]],
    feeding: Collection[str],
    cutoffs: Mapping[str, Cutoff | None],
    known: Mapping[str, Fit],
) -> dict[str, Fit]:
    """What is better than what there is, by the layers' outputs; those known tell what is cut."""
    sums = [(_sums(task), _sums(task)) for task in tasks]
    for number, (wanted, present) in enumerate(stream):
        judging = number % _BATCHES == _BATCHES - 1
        for task, pair in zip(tasks, sums, strict=True):
            rows, targets = task.pairs(wanted, present, residual=task.output in feeding)
            cutoff, fit = cutoffs[task.output], known.get(task.output)
            if cutoff is not None and fit is not None:
                targets = cutoff.eased(task, fit, rows, targets, wanted)
            if rows.shape[1] == targets.shape[1]:  # else positions went as well
                pair[judging].add(rows, targets)
    found = {
        task.output: fitted(task.matrix, learning, judging_sums, biased=task.can_shift)
        for task, (learning, judging_sums) in zip(tasks, sums, strict=True)
    }
    return {name: fit for name, fit in found.items() if fit is not None and _finite(fit)}


def _finite(fit: Fit) -> bool:
    return bool(np.isfinite(fit.weight).all() and np.isfinite(fit.shift).all())


def _sums(task: Task) -> Sums:
    groups, outputs, inputs = task.matrix.shape
    return Sums(groups=groups, inputs=inputs, outputs=outputs)


def _feeding(index: GraphIndex, tasks: Sequence[Task]) -> set[str]:
    """Those whose sum is to come out right: no other of them has a say in what it is added to."""
    made = {task.output for task in tasks}
    return {
        task.output
        for task in tasks
        if task.residual and not (made - {task.output}) & upstream(index, [task.residual.other])
    }
