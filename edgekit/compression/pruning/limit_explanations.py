"""Explanations of the limits of structured pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgekit.compression.pruning.dependency import Channels, Family
from edgekit.compression.pruning.dependency.inner_layers import describe_inner_layers
from edgekit.compression.pruning.dependency.propagation import describe_node
from edgekit.compression.pruning.surgery import count_remaining_macs, get_node_key, select_removable
from edgekit.compression.pruning.width_search import LEAST_SHARE
from edgekit.errors import PassRefused
from edgekit.onnx_graph.operators import RECURRENT_OPS
from edgekit.pass_settings import PruneChannels

_MOST_REASONS = 3


def build_nothing_error(channels: Channels, settings: PruneChannels) -> PassRefused:
    """Build the refusal of a model without prunable channels of the requested kinds."""
    kinds = sorted({family.kind for family in channels.families})
    if not settings.kinds:
        return PassRefused("kinds is empty", hint=f"kinds of this model: {', '.join(kinds)}")
    if kinds:
        return PassRefused(
            "the model has nothing of these kinds that can be removed: "
            f"{', '.join(settings.kinds)}",
            hint=f"kinds of this model: {', '.join(kinds)}",
        )
    told = [*_list_layers_by_reason(channels), *_describe_recurrent_layers(channels)]
    told.append(describe_inner_layers(channels.walk.index))
    reasons = "; ".join(filter(None, told)) or "no layer has stored weights"
    return PassRefused(f"no channels, heads or neurons can be removed: {reasons}")


def _list_layers_by_reason(channels: Channels) -> list[str]:
    """List the most frequent reasons why channels stay, each with an example layer."""
    layers: dict[str, list[str]] = {}
    for fixed in channels.fixed:
        layers.setdefault(fixed.reason, []).append(fixed.where)
    told = []
    for reason, names in sorted(layers.items(), key=lambda item: -len(item[1]))[:_MOST_REASONS]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        told.append(f"{names[0]}{more} ({reason})")
    return told


def _describe_recurrent_layers(channels: Channels) -> list[str]:
    """Describe the recurrent layers, whose units this pass does not prune."""
    nodes = [n for n in channels.walk.index.graph.node if n.op_type in RECURRENT_OPS]
    if not nodes:
        return []
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return [f"{describe_node(nodes[0])}{more} (the units of recurrent layers are not pruned)"]


def build_too_much_error(
    channels: Channels, settings: PruneChannels, reached: float
) -> PassRefused:
    """Build the refusal of a share that cannot be reached.

    Args:
        channels: channels of the model.
        settings: the request.
        reached: largest share that can be removed.
    """
    of = "multiply-accumulates" if settings.of == "macs" else f"{settings.of} of a layer"
    return PassRefused(
        f"at most {100 * reached:.0f} % of the {of} can be removed, not "
        f"{100 * settings.remove:.0f} %: {_explain_limit(channels, settings)}"
    )


def _explain_limit(channels: Channels, settings: PruneChannels) -> str:
    families = [family for family in channels.families if family.kind in settings.kinds]
    widths = (
        f"widths must be multiples of align={settings.align}, and each layer keeps at least "
        f"{100 * LEAST_SHARE:.0f} %"
    )
    if settings.of == "units" or _compute_reach(channels, families) >= settings.remove:
        return widths
    if _compute_reach(channels, channels.families) >= settings.remove:
        return f"the setting kinds allows {', '.join(settings.kinds)} only"
    makers = {get_node_key(use.node) for use in channels.walk.uses if use.role == "makes"}
    reasons = Counter(fixed.reason for fixed in channels.fixed)
    if not reasons:
        return "each layer must keep at least one group"
    reason, _ = reasons.most_common(1)[0]
    return f"{len(channels.fixed)} of {len(makers)} layers keep their channels ({reason})"


def _compute_reach(channels: Channels, families: Sequence[Family]) -> float:
    """Compute the removable share of multiply-accumulates when each family keeps one group."""
    going = select_removable(channels, [g for family in families for g in family.groups[1:]])
    return 1 - count_remaining_macs(channels, going) / max(count_remaining_macs(channels), 1)
