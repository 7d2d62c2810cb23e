"""Which layers are refitted from one run of both models, and how many runs that makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import numpy as np
from onnx import ModelProto

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import observe
from edgekit.graphs.upstream import up_to, upstream
from edgekit.passes.refit_layers import Task
from edgekit.subsets import rows_of
from edgekit_agent.samples import Samples

# Multiply-accumulates of all runs together, were each to begin at the front: minutes of one core.
_MOST_MACS = 4e12


def planned(
    changed: ModelProto, tasks: Sequence[Task], parts: Sequence[Samples], *, most: int | None
) -> list[list[Task]]:
    """Layers in stages, in the graph's order.

    Best is one stage for all layers that read nothing of one another. Where the runs would take
    too long, stages that follow each other are made one.

    Args:
        changed: the model.
        tasks: its layers.
        parts: samples of each run.
        most: stages at most; ``None`` = as many as a bound on the arithmetic of all runs allows,
            which is the same on every machine.
    """
    levels = _levels(GraphIndex(changed), tasks)
    if most is None:
        most = _affordable(changed, levels, parts)
    bounds = _bounds(len(levels), min(max(most, 1), max(len(levels), 1)))
    return [list(chain.from_iterable(levels[a:b])) for a, b in pairwise(bounds)]


def can_repeat(
    changed: ModelProto, plan: Sequence[Sequence[Task]], parts: Sequence[Samples], times: int
) -> bool:
    """Whether the runs of all stages, each made so many times, keep to the bound as well."""
    tasks = list(chain.from_iterable(plan))
    if not tasks:
        return False
    macs = _macs(changed, tasks, parts)
    upto = accumulate(sum(macs[task.output] for task in stage) for stage in plan)
    samples = sum(part.columns[0].shape[0] for part in parts)
    return 2 * samples * times * sum(upto) <= _MOST_MACS


def _levels(index: GraphIndex, tasks: Sequence[Task]) -> list[list[Task]]:
    """Layers that follow each other and can be fitted from one run without any loss."""
    found: list[list[Task]] = []
    for task in tasks:
        needed = upstream(index, task.needs)
        if not found or any(each.output in needed for each in found[-1]):
            found.append([])
        found[-1].append(task)
    return found


def _bounds(levels: int, stages: int) -> list[int]:
    bounds: list[int] = np.linspace(0, levels, stages + 1).round().astype(int).tolist()
    return bounds


def _affordable(
    changed: ModelProto, levels: Sequence[Sequence[Task]], parts: Sequence[Samples]
) -> int:
    """The most stages whose runs, each up to the last layer of the stage, keep to the bound."""
    tasks = list(chain.from_iterable(levels))
    if not tasks:
        return 1
    macs = _macs(changed, tasks, parts)
    upto = list(accumulate(sum(macs[task.output] for task in level) for level in levels))
    samples = sum(part.columns[0].shape[0] for part in parts)
    for stages in range(len(levels), 1, -1):
        ends = _bounds(len(levels), stages)[1:]
        if 2 * samples * sum(upto[end - 1] for end in ends) <= _MOST_MACS:
            return stages
    return 1


def _macs(changed: ModelProto, tasks: Sequence[Task], parts: Sequence[Samples]) -> dict[str, int]:
    """Multiply-accumulates of each layer for the first sample."""
    names = [task.output for task in tasks]
    values = next(observe(up_to(changed, names), names, [rows_of(parts[0], 0, 1)]))
    return {t.output: math.prod(values[t.output].shape) * t.layer.inputs for t in tasks}
