"""Stages of reconstruction: the layers that are refitted from one run of both models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import numpy as np
from onnx import ModelProto

from edgekit.compression.reconstruction.layer_targets import RefitTask
from edgekit.data.subsets import select_rows
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.runs.activations import observe
from edgekit.onnx_graph.subgraph import extract_subgraph, find_upstream
from edgekit_agent.samples import Samples

# Largest number of multiply-accumulates of all runs, each from the start: minutes of one core.
_MOST_MACS = 4e12


def plan_stages(
    changed: ModelProto, tasks: Sequence[RefitTask], parts: Sequence[Samples], *, most: int | None
) -> list[list[RefitTask]]:
    """Divide layers into stages, in the graph's order.

    The most exact plan has one stage for each set of layers that don't depend on each other. Where
    the runs would take too long, consecutive stages are merged.

    Args:
        changed: the model.
        tasks: its layers.
        parts: samples of each run.
        most: largest number of stages; ``None`` = as many as a bound on the arithmetic of all runs
            allows, which is the same on every machine.
    """
    levels = _group_independent(GraphIndex(changed), tasks)
    if most is None:
        most = _count_affordable_stages(changed, levels, parts)
    bounds = _compute_bounds(len(levels), min(max(most, 1), max(len(levels), 1)))
    return [list(chain.from_iterable(levels[a:b])) for a, b in pairwise(bounds)]


def can_repeat(
    changed: ModelProto, plan: Sequence[Sequence[RefitTask]], parts: Sequence[Samples], times: int
) -> bool:
    """Return whether the runs of all stages, each repeated ``times``, stay below the bound.

    Args:
        changed: the model.
        plan: the layers of each stage.
        parts: samples of each run.
        times: number of runs of each stage.
    """
    tasks = list(chain.from_iterable(plan))
    if not tasks:
        return False
    macs = _count_macs(changed, tasks, parts)
    upto = accumulate(sum(macs[task.output] for task in stage) for stage in plan)
    samples = sum(part.columns[0].shape[0] for part in parts)
    return 2 * samples * times * sum(upto) <= _MOST_MACS


def _group_independent(index: GraphIndex, tasks: Sequence[RefitTask]) -> list[list[RefitTask]]:
    """Group consecutive layers that can be fitted from one run without loss."""
    found: list[list[RefitTask]] = []
    for task in tasks:
        needed = find_upstream(index, task.needs)
        if not found or any(each.output in needed for each in found[-1]):
            found.append([])
        found[-1].append(task)
    return found


def _compute_bounds(levels: int, stages: int) -> list[int]:
    bounds: list[int] = np.linspace(0, levels, stages + 1).round().astype(int).tolist()
    return bounds


def _count_affordable_stages(
    changed: ModelProto, levels: Sequence[Sequence[RefitTask]], parts: Sequence[Samples]
) -> int:
    """Count the stages whose runs, each up to the last layer of the stage, stay below the bound."""
    tasks = list(chain.from_iterable(levels))
    if not tasks:
        return 1
    macs = _count_macs(changed, tasks, parts)
    upto = list(accumulate(sum(macs[task.output] for task in level) for level in levels))
    samples = sum(part.columns[0].shape[0] for part in parts)
    for stages in range(len(levels), 1, -1):
        ends = _compute_bounds(len(levels), stages)[1:]
        if 2 * samples * sum(upto[end - 1] for end in ends) <= _MOST_MACS:
            return stages
    return 1


def _count_macs(
    changed: ModelProto, tasks: Sequence[RefitTask], parts: Sequence[Samples]
) -> dict[str, int]:
    """Count the multiply-accumulates of each layer for the first sample."""
    names = [task.output for task in tasks]
    values = next(observe(extract_subgraph(changed, names), names, [select_rows(parts[0], 0, 1)]))
    return {t.output: math.prod(values[t.output].shape) * t.layer.inputs for t in tasks}
