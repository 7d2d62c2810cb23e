"""Bits to layers: the least damage to the outputs for the bits that there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

# Ends of the price of a bit between which the right one is looked for.
_CHEAP, _DEAR = 1e-18, 1e4
_ROUNDS = 80
# Sums of the same bits in another order.
_ROUNDING = 1 + 1e-9
# Divergence is told from so much on; what does not change the outputs on a few samples is not
# free, and what ruins them has no measure.
_NOISE, _RUINED = 1e-9, 1e6


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to store a layer: bits of a weight, and what it costs the outputs."""

    bits: float
    damage: float


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be done with one layer of so many weights."""

    weights: int
    choices: Sequence[Choice]


def allocate(layers: Sequence[Options], bits: float) -> list[int]:
    """A choice for each layer, of the least damage in all for ``bits`` a weight on average.

    The damages add up, so each layer takes the choice that is best at one price of a bit, which
    is the same for all of them; what is left then goes where it mends most. Where choices are few
    and far between, the same bits for all layers may be better, and are taken then. Where even
    the lightest choices take more than there is, these are taken.

    Source: Shoham and Gersho 1988, "Efficient Bit Allocation for an Arbitrary Set of Quantizers".

    Returns:
        For each layer the place of its choice.
    """
    room = bits * sum(layer.weights for layer in layers)
    low, high = _CHEAP, _DEAR
    picked = _at_price(layers, high)
    for _ in range(_ROUNDS):
        price = math.sqrt(low * high)
        tried = _at_price(layers, price)
        if _spent(layers, tried) > room:
            low = price
        else:
            picked, high = tried, price
    alike = [at_most(layer, bits) for layer in layers]
    ways = [_spend_the_rest(layers, way, room) for way in (picked, alike)]
    return min(ways, key=lambda way: (_spent(layers, way) > room * _ROUNDING, _damage(layers, way)))


def at_most(layer: Options, bits: float) -> int:
    """The best choice of no more bits, or the lightest one."""
    places = range(len(layer.choices))
    held = [i for i in places if layer.choices[i].bits <= bits]
    if not held:
        return min(places, key=lambda i: layer.choices[i].bits)
    return min(held, key=lambda i: layer.choices[i].damage)


def _damage(layers: Sequence[Options], picked: Sequence[int]) -> float:
    return sum(layer.choices[i].damage for layer, i in zip(layers, picked, strict=True))


def nearest(layer: Options, bits: float) -> int:
    """The choice whose bits come nearest."""
    return min(range(len(layer.choices)), key=lambda i: abs(layer.choices[i].bits - bits))


def as_divergence(layer: Options, tried: int, lost: float) -> Options:
    """Its choices with divergences of the outputs for errors, as they are in proportion.

    Args:
        layer: choices whose damages are errors of its outputs.
        tried: the place of the choice that was tried. Of one that happens to change nothing, the
            worst of them tells.
        lost: the divergence that it made; one that is not finite costs more than any other.
    """
    choices = layer.choices
    at_probe = choices[tried].damage or max(c.damage for c in choices) or 1.0
    each = max(min(lost, _RUINED), _NOISE) if math.isfinite(lost) else _RUINED
    scaled = [Choice(bits=c.bits, damage=each * (c.damage / at_probe)) for c in choices]
    return replace(layer, choices=scaled)


def at_least(layer: Options, tried: int, lost: float) -> Options:
    """Its choices with what the finest of them really costs added, as far as it was not foreseen.

    Args:
        layer: choices with divergences.
        tried: the place of the finest choice.
        lost: the divergence that it made.
    """
    more = lost - layer.choices[tried].damage
    if not math.isfinite(lost) or more <= 0:
        return layer
    return replace(layer, choices=[replace(c, damage=c.damage + more) for c in layer.choices])


def lightest(layers: Sequence[Options]) -> float:
    """Bits of a weight on average where every layer takes as few as it can."""
    weights = sum(layer.weights for layer in layers)
    return sum(layer.weights * min(c.bits for c in layer.choices) for layer in layers) / max(
        weights, 1
    )


def _at_price(layers: Sequence[Options], price: float) -> list[int]:
    def best(layer: Options) -> int:
        choices = layer.choices
        cost = [c.damage + price * layer.weights * c.bits for c in choices]
        return min(range(len(choices)), key=lambda i: (cost[i], choices[i].bits))

    return [best(layer) for layer in layers]


def _spent(layers: Sequence[Options], picked: Sequence[int]) -> float:
    return sum(
        layer.weights * layer.choices[i].bits for layer, i in zip(layers, picked, strict=True)
    )


def _spend_the_rest(layers: Sequence[Options], picked: list[int], room: float) -> list[int]:
    """Better choices, the most mended for a bit first, while there is room."""
    left = room - _spent(layers, picked)
    picked = list(picked)
    while True:
        best: tuple[float, int, int, float] | None = None
        for place, layer in enumerate(layers):
            now = layer.choices[picked[place]]
            for i, choice in enumerate(layer.choices):
                more = layer.weights * (choice.bits - now.bits)
                mended = now.damage - choice.damage
                if 0 < more <= left and mended > 0 and (best is None or mended / more > best[0]):
                    best = (mended / more, place, i, more)
        if best is None:
            return picked
        picked[best[1]] = best[2]
        left -= best[3]
