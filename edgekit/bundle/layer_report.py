"""Record of each layer's cost in bits and output divergence, written beside a pass's file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.errors import PassError
from edgekit_agent.codec import decode, encode
from edgekit_agent.files import write_atomic

LAYERS = "layers.json"
_FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Cost of one layer's weights as a pass stored them.

    ``bits`` is the entropy of a weight, ``width`` the nominal width in bits (32 = float), ``kl``
    the Kullback-Leibler divergence of the outputs in nats on held-out samples if only this layer
    has that width, ``bytes`` the size of the layer if its weights take their entropy. ``note``
    tells other changes, such as the rank, and ``zeros`` is the share of the weights that a pruning
    pass set to zero.
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
    def remarks(self) -> str:
        """Return changes of the layer other than its bits, in words; empty if there are none."""
        zeros = f"{100 * self.zeros:.0f} % zeros" if self.zeros else ""
        return ", ".join(filter(None, (self.note, zeros)))


def make_float_layer_cost(
    *, layer: str, op: str, parameters: int, kl: float, note: str
) -> LayerCost:
    """Return the cost of a layer, or of the rest of a layer, whose weights are float32."""
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
    """Write the record into the folder of a pass, completely or not at all.

    Raises:
        PassError: A figure is not finite, or an amount is negative; names the layer.
    """
    for cost in costs:
        amounts = (cost.parameters, cost.bits, cost.width, cost.bytes, cost.zeros)
        # Rounding may turn a divergence of zero slightly negative.
        if not math.isfinite(cost.kl) or not all(0 <= a < math.inf for a in amounts):
            raise PassError(f"layer {cost.layer}: not a valid layer cost: {encode(cost)}")
    facts = encode_layers(costs)
    write_atomic(str(folder / LAYERS), json.dumps(facts).encode("utf-8"))


def read_layers(folder: Path) -> tuple[LayerCost, ...]:
    """Read the record in a folder, in the pass's order; empty if there is none.

    Raises:
        PassError: The file is not such a record.
    """
    path = folder / LAYERS
    if not path.exists():
        return ()
    try:
        return decode_layers(json.loads(path.read_bytes()))
    except ValueError as error:
        raise PassError(f"{LAYERS}: not a valid layer report: {error}") from error


def prepend_remarks(
    costs: Sequence[LayerCost], earlier: Sequence[LayerCost]
) -> tuple[LayerCost, ...]:
    """Prepend the remarks of earlier steps on the same layers to the notes of a step's record."""
    known = {cost.layer: cost.remarks for cost in earlier}
    return tuple(
        replace(c, note=", ".join(filter(None, (known.get(c.layer, ""), c.note)))) for c in costs
    )


def encode_layers(costs: Sequence[LayerCost]) -> list[dict[str, Any]]:
    """Encode the record for ``json.dumps``."""
    return [encode(cost) for cost in costs]


def decode_layers(facts: object) -> tuple[LayerCost, ...]:
    """Decode the record from the result of ``encode_layers``.

    Raises:
        ValueError: ``facts`` is not such a record; tells where.
    """
    if not isinstance(facts, list):
        raise ValueError("expected an array")
    return tuple(decode(LayerCost, fact) for fact in facts)
