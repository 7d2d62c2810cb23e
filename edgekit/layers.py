"""What each layer costs in bits and in agreement; a pass may leave this record beside its file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.errors import PassError
from edgekit_agent.codec import decode, encode
from edgekit_agent.files import write_whole

LAYERS = "layers.json"
_FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer's weights as a pass stored them.

    ``bits`` is the entropy of a weight, ``width`` the nominal width in bits (32 = float), ``kl``
    the Kullback-Leibler divergence of the outputs in nats on held-out samples when only this layer
    has that width, ``bytes`` what the layer weighs when its weights take their entropy. ``note``
    says what else became of it, its rank for instance, and ``zeros`` which part of its weights a
    pruning pass left at zero.
    """

    layer: str
    op: str
    parameters: int
    bits: float
    width: int
    kl: float
    bytes: int
    note: str = ""
    zeros: float = 0.0

    @property
    def fate(self) -> str:
        """What became of the layer beside its bits, in words; empty where nothing did."""
        zeros = f"{100 * self.zeros:.0f} % zeros" if self.zeros else ""
        return ", ".join(filter(None, (self.note, zeros)))


def float_layer(*, layer: str, op: str, parameters: int, kl: float, note: str) -> LayerCost:
    """A layer, or what is left of it, whose weights are float32."""
    return LayerCost(
        layer=layer,
        op=op,
        parameters=parameters,
        bits=_FLOAT_BITS,
        width=_FLOAT_BITS,
        kl=kl,
        bytes=parameters * _FLOAT_BITS // 8,
        note=note,
    )


def write_layers(folder: Path, costs: Sequence[LayerCost]) -> None:
    """Leave the record in a pass's folder, whole or not at all.

    Raises:
        PassError: a figure is not finite, or an amount is negative; says of which layer.
    """
    for cost in costs:
        amounts = (cost.parameters, cost.bits, cost.width, cost.bytes, cost.zeros)
        # Rounding may take a divergence of nothing just below zero.
        if not math.isfinite(cost.kl) or not all(0 <= a < math.inf for a in amounts):
            raise PassError(f"layer {cost.layer}: not a cost: {encode(cost)}")
    facts = layer_facts(costs)
    write_whole(str(folder / LAYERS), json.dumps(facts).encode("utf-8"))


def read_layers(folder: Path) -> tuple[LayerCost, ...]:
    """The record in a folder, in the pass's order; empty where the pass left none.

    Raises:
        PassError: the file is not such a record.
    """
    path = folder / LAYERS
    if not path.exists():
        return ()
    try:
        return layer_costs(json.loads(path.read_bytes()))
    except ValueError as error:
        raise PassError(f"{LAYERS}: not a record of layers: {error}") from error


def with_notes(costs: Sequence[LayerCost], earlier: Sequence[LayerCost]) -> tuple[LayerCost, ...]:
    """The record of a step, with what steps before it told of the same layers in front."""
    known = {cost.layer: cost.fate for cost in earlier}
    return tuple(
        replace(c, note=", ".join(filter(None, (known.get(c.layer, ""), c.note)))) for c in costs
    )


def layer_facts(costs: Sequence[LayerCost]) -> list[dict[str, Any]]:
    """The record as what ``json.dumps`` takes."""
    return [encode(cost) for cost in costs]


def layer_costs(facts: object) -> tuple[LayerCost, ...]:
    """The record that ``layer_facts`` made ``facts`` from.

    Raises:
        ValueError: it is not such a record; says where.
    """
    if not isinstance(facts, list):
        raise ValueError("expected an array")
    return tuple(decode(LayerCost, fact) for fact in facts)
