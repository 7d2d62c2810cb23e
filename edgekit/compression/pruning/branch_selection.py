"""Choice of residual branches to remove instead of narrowing all layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgekit.compression.pruning.branch_scores import BranchOption
from edgekit.compression.pruning.dependency import Channels
from edgekit.compression.pruning.residual_branches import Branch
from edgekit.compression.pruning.surgery import get_node_key

# Share of the multiply-accumulates that always stays.
_LEAST = 0.05


def count_branch_macs(channels: Channels, branch: Branch) -> int:
    """Count the multiply-accumulates of a branch, at the sizes for which channels were found."""
    nodes = set(branch.nodes)
    return sum(
        product.constant * math.prod(len(axis) for axis in product.axes)
        for product in channels.walk.products
        if get_node_key(product.node) in nodes
    )


def choose_removed_branches(
    channels: Channels,
    options: Sequence[BranchOption],
    whole: float,
    damage_at: Callable[[float], float],
    most: float,
) -> list[Branch]:
    """Choose the residual branches whose removal does less damage than the widths it spares.

    Args:
        channels: channels of the model.
        options: branches that could be removed, least damage per saving first.
        whole: multiply-accumulates of the model.
        damage_at: returns the damage of the best widths at a number of multiply-accumulates;
            infinite where it cannot be reached.
        most: multiply-accumulates that may remain.
    """
    taken: list[Branch] = []
    least, saved, done = damage_at(most), 0.0, 0.0
    nodes: set[str] = set()
    for option in options:
        macs = count_branch_macs(channels, option.branch)
        if not math.isfinite(option.damage) or nodes & set(option.branch.nodes) or not macs:
            continue
        rest = whole - saved - macs
        if rest < _LEAST * whole:
            continue
        # Widths remove the same share of each layer, whether other layers are there or not.
        damage = done + option.damage + damage_at(min(most / rest, 1.0) * whole)
        if damage < least or math.isinf(least):
            taken.append(option.branch)
            nodes |= set(option.branch.nodes)
            least, saved, done = damage, saved + macs, done + option.damage
    return taken
