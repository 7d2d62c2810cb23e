"""Bits are allocated where they reduce the damage most, within the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compression.budget_allocation import Choice, Options, allocate, compute_least_cost
from edgekit.compression.sensitivity import scale_to_probes
from edgekit.progress import ignore_progress


def layer(weights, damage, widths=(2, 3, 4, 5, 6, 7, 8)):
    """Each bit takes a quarter of the damage (6 dB)."""
    choices = [Choice(cost=float(b), damage=damage / 4**b) for b in widths]
    return Options(size=weights, choices=choices)


def spent(layers, picked):
    return sum(o.compute_cost(i) for o, i in zip(layers, picked, strict=True))


def test_of_two_layers_of_one_size_the_one_that_matters_gets_more():
    layers = [layer(100, 1.0), layer(100, 256.0)]

    picked = allocate(layers, 4.0)

    assert [o.choices[i].cost for o, i in zip(layers, picked, strict=True)] == [2.0, 6.0]


def test_where_choices_are_few_the_same_for_all_may_be_best():
    coarse = [layer(10, 1.0, (4, 8, 32)), layer(1000, 1.0, (2, 4, 8, 32))]

    picked = allocate(coarse, 4.0)

    assert [o.choices[i].cost for o, i in zip(coarse, picked, strict=True)] == [4.0, 4.0]


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.floats(1e-6, 1e6)), min_size=1, max_size=8),
    st.floats(2.0, 9.0),
)
def test_the_budget_is_not_exceeded_and_used_as_far_as_it_helps(facts, bits):
    layers = [layer(*each) for each in facts]
    room = bits * sum(o.size for o in layers)

    picked = allocate(layers, bits)

    left = room - spent(layers, picked)
    assert left > -1e-6 * room
    for options, place in zip(layers, picked, strict=True):
        now = options.choices[place]
        assert not any(
            c.damage < now.damage and options.size * (c.cost - now.cost) < left * (1 - 1e-9)
            for c in options.choices
        )


def test_a_budget_below_the_minimum_is_refused_with_the_minimum():
    layers = [layer(100, 1.0), layer(300, 1.0, (4, 8))]

    assert compute_least_cost(layers) == pytest.approx(3.5)
    assert spent(layers, allocate(layers, 1.0)) == 100 * 2 + 300 * 4


def test_a_layer_that_ruins_the_outputs_is_judged_by_its_finer_choice():
    coarse, fine = layer(100, 16.0), layer(100, 16.0)
    measured = {(0, 0): 0.01, (1, 0): 5.0, (1, 2): 0.05}

    scaled = scale_to_probes(
        [coarse, fine, fine],
        [[0, 2], [0, 2], []],
        lambda number, place: measured[number, place],
        ignore_progress,
    )

    assert [options.choices[0].damage for options in scaled] == pytest.approx(
        [0.01, 0.05 * 4**2, fine.choices[0].damage]
    )
