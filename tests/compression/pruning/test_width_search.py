"""Width search: aligned widths, exact counts, and the least damage."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.pruning.dependency import Family, find_channels
from edgekit.compression.pruning.importance import Ranking
from edgekit.compression.pruning.surgery import count_remaining_macs
from edgekit.compression.pruning.width_search import (
    Ladder,
    Sizes,
    WidthSearch,
    choose_uniform_steps,
    collect_removed,
    list_removal_counts,
    sum_damages,
)
from edgekit.onnx_graph.rewrites.prepare import prepare
from tests.builders.tiny import proto
from tests.compression.pruning.test_structured import CONVS, convs


def family(count, width=1):
    return Family(name="f", kind="channels", groups=tuple(range(count)), width=width)


def ladders(damages):
    """The two families of a small network, each with the damage of a whole cut."""
    channels = find_channels(prepare(proto(CONVS, weights=convs()), 13))
    made = []
    for each, worst in zip(channels.families, damages, strict=True):
        steps = list_removal_counts(each, 8)
        made.append(
            Ladder(
                family=each,
                ranking=Ranking(order=each.groups, costs=np.linspace(0, 1, len(each.groups) + 1)),
                steps=steps,
                damages=worst * np.array(steps) / len(each.groups),
            )
        )
    return channels, made


@pytest.mark.parametrize(
    ("count", "width", "align", "left"),
    [
        (32, 1, 8, {32, 24, 16, 8}),
        (64, 1, 8, {64, 48, 32, 16}),  # wide ones keep blocks of 16
        (24, 1, 16, {24, 16, 8}),
        (12, 32, 8, set(range(2, 13))),  # a head is a multiple by itself
        (6, 1, 1, {6, 5, 4, 3, 2, 1}),
    ],
)
def test_remaining_widths_stay_aligned(count, width, align, left):
    assert {count - step for step in list_removal_counts(family(count, width), align)} == left


def test_counts_of_a_search_state_match_the_removed_groups():
    channels, made = ladders([1.0, 1.0])
    sizes = Sizes(channels, made)

    for state in ([0, 0], [1, 0], [1, 2], [3, 3]):
        assert sizes.macs(state) == count_remaining_macs(channels, collect_removed(made, state))


def test_channels_that_only_pad_a_block_save_no_time():
    channels, made = ladders([1.0, 1.0])
    sizes = Sizes(channels, made)

    assert (
        sizes.count_padded_macs([0, 1]) == sizes.count_padded_macs([0, 0]) == sizes.macs([0, 0])
    )  # 24 of 32
    assert sizes.count_padded_macs([0, 2]) == sizes.macs([0, 2])  # 16 of 32


@pytest.mark.parametrize("dear", [0, 1])
def test_the_family_with_less_damage_loses_more_channels(dear):
    damages = [1.0, 1.0]
    damages[dear] = 100.0
    channels, made = ladders(damages)
    sizes = Sizes(channels, made)
    most = 0.6 * sizes.macs([0, 0])

    state = WidthSearch(made, sizes.macs, pace=sizes.macs).allocate(most)

    assert sizes.macs(state) <= most
    assert state[1 - dear] > state[dear]
    assert sum_damages(made, state) < sum_damages(
        made, choose_uniform_steps(made, sizes.macs, most)
    )


def test_one_search_serves_several_amounts_with_the_same_steps():
    channels, made = ladders([1.0, 3.0])
    calls = []

    def counting(sizes):
        def size(state):
            calls.append(tuple(state))
            return sizes.macs(state)

        return size

    sizes = Sizes(channels, made)
    parts = (0.8, 0.6, 0.4, 0.3)
    alone, counts = [], []
    for part in parts:
        calls.clear()
        size = counting(sizes)
        alone.append(WidthSearch(made, size, pace=size).allocate(part * sizes.macs([0, 0])))
        counts.append(len(calls))

    calls.clear()
    size = counting(sizes)
    shared = WidthSearch(made, size, pace=size)
    assert [shared.allocate(part * sizes.macs([0, 0])) for part in parts] == alone
    assert len(calls) < 0.75 * sum(counts)
