"""Allocation of a budget to layers: of each layer the choice with the least damage in total."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

# Bounds of the search for the price of a unit of cost (the Lagrange multiplier).
_CHEAP, _DEAR = 1e-18, 1e4
_ROUNDS = 80
# Tolerance for sums of the same costs in another order.
_ROUNDING = 1 + 1e-9
# Bounds of a divergence: a layer that does not change the outputs of a few samples is not free,
# and outputs that are ruined have no measure.
_NOISE, _RUINED = 1e-9, 1e6


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to store a layer: its cost per unit of size, and the damage to the outputs.

    The cost is the bits per weight of a quantized layer, the share of parameters or operations
    that a factorized layer keeps, or the share of weights that a pruned layer keeps.
    """

    cost: float
    damage: float


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices for one layer, with the size by which their costs count (its number of weights)."""

    size: int
    choices: Sequence[Choice]

    def compute_cost(self, place: int) -> float:
        """Compute the cost of a choice for the whole layer."""
        return self.size * self.choices[place].cost


def allocate(layers: Sequence[Options], budget: float) -> list[int]:
    """Allocate a choice to each layer with the least total damage for an average cost.

    The damages add up, so each layer takes the choice that is best at one price of a unit, which is
    the same for all layers; what remains of the budget then goes where it reduces the damage most.
    Where the choices are few and far between, the same cost for all layers may be better, and is
    taken then. Where even the lightest choices exceed the budget, these are taken.

    Source: Shoham and Gersho 1988, "Efficient Bit Allocation for an Arbitrary Set of Quantizers".

    Args:
        layers: the choices of each layer.
        budget: cost per unit of size, on average over all layers.

    Returns:
        For each layer the place of its choice.
    """
    total = budget * sum(layer.size for layer in layers)
    low, high = _CHEAP, _DEAR
    picked = _choose_at_price(layers, high)
    for _ in range(_ROUNDS):
        price = math.sqrt(low * high)
        tried = _choose_at_price(layers, price)
        if _sum_costs(layers, tried) > total:
            low = price
        else:
            picked, high = tried, price
    alike = [choose_at_most(layer, budget) for layer in layers]
    candidates = [_spend_the_rest(layers, each, total) for each in (picked, alike)]
    return min(
        candidates,
        key=lambda each: (_sum_costs(layers, each) > total * _ROUNDING, _sum_damages(layers, each)),
    )


def choose_at_most(layer: Options, cost: float) -> int:
    """Choose the least damage that costs at most ``cost``, or the lowest cost if none fits."""
    places = range(len(layer.choices))
    held = [i for i in places if layer.choices[i].cost <= cost]
    if not held:
        return min(places, key=lambda i: layer.choices[i].cost)
    return min(held, key=lambda i: layer.choices[i].damage)


def choose_nearest(layer: Options, cost: float) -> int:
    """Choose the option whose cost is nearest to ``cost``."""
    return min(range(len(layer.choices)), key=lambda i: abs(layer.choices[i].cost - cost))


def compute_least_cost(layers: Sequence[Options]) -> float:
    """Compute the average cost where every layer takes its lightest choice."""
    size = sum(layer.size for layer in layers)
    return sum(layer.size * min(c.cost for c in layer.choices) for layer in layers) / max(size, 1)


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
    scaled = [Choice(cost=c.cost, damage=each * (c.damage / at_probe)) for c in choices]
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


def _sum_damages(layers: Sequence[Options], picked: Sequence[int]) -> float:
    return sum(layer.choices[i].damage for layer, i in zip(layers, picked, strict=True))


def _sum_costs(layers: Sequence[Options], picked: Sequence[int]) -> float:
    return sum(layer.compute_cost(i) for layer, i in zip(layers, picked, strict=True))


def _choose_at_price(layers: Sequence[Options], price: float) -> list[int]:
    def best(layer: Options) -> int:
        choices = layer.choices
        paid = [c.damage + price * layer.size * c.cost for c in choices]
        return min(range(len(choices)), key=lambda i: (paid[i], choices[i].cost))

    return [best(layer) for layer in layers]


def _spend_the_rest(layers: Sequence[Options], picked: list[int], total: float) -> list[int]:
    """Improve choices while the budget allows, those with the most damage saved per cost first."""
    left = total - _sum_costs(layers, picked)
    picked = list(picked)
    while True:
        best: tuple[float, int, int, float] | None = None
        for place, layer in enumerate(layers):
            now = layer.choices[picked[place]]
            for i, choice in enumerate(layer.choices):
                more = layer.size * (choice.cost - now.cost)
                saved = now.damage - choice.damage
                if 0 < more <= left and saved > 0 and (best is None or saved / more > best[0]):
                    best = (saved / more, place, i, more)
        if best is None:
            return picked
        picked[best[1]] = best[2]
        left -= best[3]
