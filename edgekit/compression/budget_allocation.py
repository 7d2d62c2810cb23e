"""Allocation of bits to layers: the least damage to the outputs for a bit budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

# Bounds of the search for the price of a bit (the Lagrange multiplier).
_CHEAP, _DEAR = 1e-18, 1e4
_ROUNDS = 80
# Tolerance for sums of the same bits in another order.
_ROUNDING = 1 + 1e-9
# Bounds of a divergence: a layer that does not change the outputs of a few samples is not free,
# and outputs that are ruined have no measure.
_NOISE, _RUINED = 1e-9, 1e6


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to store a layer: bits per weight, and damage to the outputs."""

    bits: float
    damage: float


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices for one layer, with its number of weights."""

    weights: int
    choices: Sequence[Choice]


def allocate(layers: Sequence[Options], bits: float) -> list[int]:
    """Allocate a choice to each layer with the least total damage for an average number of bits.

    The damages add up, so each layer takes the choice that is best at one price of a bit, which is
    the same for all layers; remaining bits then go where they reduce the damage most. Where the
    choices are few and far between, the same bits for all layers may be better, and are taken
    then. Where even the lightest choices exceed the budget, these are taken.

    Source: Shoham and Gersho 1988, "Efficient Bit Allocation for an Arbitrary Set of Quantizers".

    Args:
        layers: the choices of each layer.
        bits: budget per weight, on average over all layers.

    Returns:
        For each layer the place of its choice.
    """
    room = bits * sum(layer.weights for layer in layers)
    low, high = _CHEAP, _DEAR
    picked = _choose_at_price(layers, high)
    for _ in range(_ROUNDS):
        price = math.sqrt(low * high)
        tried = _choose_at_price(layers, price)
        if _sum_bits(layers, tried) > room:
            low = price
        else:
            picked, high = tried, price
    alike = [choose_at_most(layer, bits) for layer in layers]
    ways = [_spend_the_rest(layers, way, room) for way in (picked, alike)]
    return min(
        ways, key=lambda way: (_sum_bits(layers, way) > room * _ROUNDING, _sum_damages(layers, way))
    )


def choose_at_most(layer: Options, bits: float) -> int:
    """Choose the least damage with at most ``bits`` per weight, or the fewest bits if none fits."""
    places = range(len(layer.choices))
    held = [i for i in places if layer.choices[i].bits <= bits]
    if not held:
        return min(places, key=lambda i: layer.choices[i].bits)
    return min(held, key=lambda i: layer.choices[i].damage)


def _sum_damages(layers: Sequence[Options], picked: Sequence[int]) -> float:
    return sum(layer.choices[i].damage for layer, i in zip(layers, picked, strict=True))


def choose_nearest(layer: Options, bits: float) -> int:
    """Choose the option whose bits per weight are nearest to ``bits``."""
    return min(range(len(layer.choices)), key=lambda i: abs(layer.choices[i].bits - bits))


def scale_to_divergence(layer: Options, tried: int, lost: float) -> Options:
    """Return the choices with damages scaled from layer errors to a measured output divergence.

    Args:
        layer: choices whose damages are errors of the layer's outputs.
        tried: place of the choice that was measured. If its error is zero, the largest error
            takes its place.
        lost: the divergence that it caused; one that is not finite counts as the worst.
    """
    choices = layer.choices
    at_probe = choices[tried].damage or max(c.damage for c in choices) or 1.0
    each = max(min(lost, _RUINED), _NOISE) if math.isfinite(lost) else _RUINED
    scaled = [Choice(bits=c.bits, damage=each * (c.damage / at_probe)) for c in choices]
    return replace(layer, choices=scaled)


def raise_to_measured(layer: Options, tried: int, lost: float) -> Options:
    """Return the choices with the unforeseen damage of the finest one added to all.

    Args:
        layer: choices with divergences.
        tried: place of the finest choice.
        lost: the divergence that it caused.
    """
    more = lost - layer.choices[tried].damage
    if not math.isfinite(lost) or more <= 0:
        return layer
    return replace(layer, choices=[replace(c, damage=c.damage + more) for c in layer.choices])


def compute_least_bits(layers: Sequence[Options]) -> float:
    """Compute the average bits per weight where every layer takes its lightest choice."""
    weights = sum(layer.weights for layer in layers)
    return sum(layer.weights * min(c.bits for c in layer.choices) for layer in layers) / max(
        weights, 1
    )


def _choose_at_price(layers: Sequence[Options], price: float) -> list[int]:
    def best(layer: Options) -> int:
        choices = layer.choices
        cost = [c.damage + price * layer.weights * c.bits for c in choices]
        return min(range(len(choices)), key=lambda i: (cost[i], choices[i].bits))

    return [best(layer) for layer in layers]


def _sum_bits(layers: Sequence[Options], picked: Sequence[int]) -> float:
    return sum(
        layer.weights * layer.choices[i].bits for layer, i in zip(layers, picked, strict=True)
    )


def _spend_the_rest(layers: Sequence[Options], picked: list[int], room: float) -> list[int]:
    """Improve choices while the budget allows, those with the most damage saved per bit first."""
    left = room - _sum_bits(layers, picked)
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
