"""Whether it is cheaper to leave out a residual layer than to narrow all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgekit.graphs.branches import Branch
from edgekit.graphs.channels import Channels
from edgekit.graphs.cutting import key
from edgekit.passes.branch_choice import BranchOption

# Of the multiply-accumulates, so much always stays.
_LEAST = 0.05


def macs_within(channels: Channels, branch: Branch) -> int:
    """Multiply-accumulates of a branch, for the sizes the channels were found at."""
    nodes = set(branch.nodes)
    return sum(
        product.constant * math.prod(len(axis) for axis in product.axes)
        for product in channels.walk.products
        if key(product.node) in nodes
    )


def left_out(
    channels: Channels,
    options: Sequence[BranchOption],
    whole: float,
    damage_at: Callable[[float], float],
    most: float,
) -> list[Branch]:
    """Residual layers whose going does less damage than the widths that it spares.

    Args:
        channels: of the model.
        options: those that could go, the cheapest for its savings first.
        whole: multiply-accumulates of the model.
        damage_at: what the best widths cost when so many are left of the whole; infinite where
            they cannot.
        most: multiply-accumulates that may be left.
    """
    taken: list[Branch] = []
    least, saved, done = damage_at(most), 0.0, 0.0
    nodes: set[str] = set()
    for option in options:
        macs = macs_within(channels, option.branch)
        if not math.isfinite(option.damage) or nodes & set(option.branch.nodes) or not macs:
            continue
        rest = whole - saved - macs
        if rest < _LEAST * whole:
            continue
        # The widths take of each layer the same part, whether others are there or not.
        damage = done + option.damage + damage_at(min(most / rest, 1.0) * whole)
        if damage < least or math.isinf(least):
            taken.append(option.branch)
            nodes |= set(option.branch.nodes)
            least, saved, done = damage, saved + macs, done + option.damage
    return taken
