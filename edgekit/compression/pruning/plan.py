"""Plan of structured pruning, and the table of layers that it leads to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekit.bundle.layer_report import LayerCost, make_float_layer_cost
from edgekit.compression.pruning.consumers import Readers
from edgekit.compression.pruning.dependency import Channels
from edgekit.compression.pruning.surgery import get_node_key
from edgekit.compression.pruning.width_search import Ladder


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Residual branches to remove, and channel groups to remove from the remaining graph."""

    channels: Channels
    readers: Readers
    ladders: Sequence[Ladder]
    state: Sequence[int]
    going: Sequence[int]
    branches: Mapping[str, float] = field(default_factory=dict)  # damage by name
    removed_share: str = ""  # removed share, if it is much more than was asked


def list_costs(plan: Plan, *, measured: bool) -> list[LayerCost]:
    """List the costs of each removed residual branch and of each dependency group.

    Args:
        plan: the plan that was carried out.
        measured: whether damages are output divergences; others are not listed.
    """
    return [*_list_branch_costs(plan), *_list_family_costs(plan, measured=measured)]


def _list_branch_costs(plan: Plan) -> list[LayerCost]:
    return [
        make_float_layer_cost(
            layer=name,
            op="Add",
            parameters=0,
            kl=damage,
            note=_extend_note(plan.removed_share, "residual layer removed", "as a whole"),
        )
        for name, damage in plan.branches.items()
    ]


def _extend_note(removed_share: str, note: str, why: str) -> str:
    """Extend a note by the reason why more was removed than asked, if there is one."""
    return f"{note} {why}; {removed_share}" if removed_share else note


def _list_family_costs(plan: Plan, *, measured: bool) -> list[LayerCost]:
    going = set(plan.going)
    return [
        _build_cost(
            plan,
            ladder,
            damage=float(ladder.damages[step]) if measured else 0.0,
            went=len(going & set(ladder.family.groups)),
        )
        for ladder, step in zip(plan.ladders, plan.state, strict=True)
    ]


def _build_cost(plan: Plan, ladder: Ladder, *, damage: float, went: int) -> LayerCost:
    channels, family = plan.channels, ladder.family
    first = next(p for p in channels.groups[family.groups[0]].places if p.role == "makes")
    uses = [
        use
        for use in channels.walk.uses
        if get_node_key(use.node) == get_node_key(first.node) and use.position == first.position
    ]
    flags = channels.make_flags(plan.going)
    parameters = math.prod(
        int(channels.find_kept_by_flags(use.labels, flags).sum()) for use in uses
    )
    count = len(family.groups)
    note = f"{count} {family.kind}"
    if went:
        steps = f"in steps of {ladder.steps[1]}"
        note = _extend_note(plan.removed_share, f"{count} -> {count - went} {family.kind}", steps)
    op = first.node.op_type
    return make_float_layer_cost(
        layer=family.name, op=op, parameters=parameters, kl=damage, note=note
    )
