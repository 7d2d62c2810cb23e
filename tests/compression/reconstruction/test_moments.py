"""Sums of second moments, accumulated a few rows at a time."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.reconstruction.moments import Moments

GROUPS, INPUTS, TARGETS = 2, 5, 3


def draw(rows, width, *, seed):
    return np.random.default_rng(seed).normal(1.0, 2.0, (GROUPS, rows, width))


@pytest.mark.parametrize("at_once", [1, 4, 40])
def test_the_sums_do_not_depend_on_how_many_rows_come_at_once(at_once):
    x, y = draw(40, INPUTS, seed=0), draw(40, TARGETS, seed=1)
    sums = Moments.create_empty(GROUPS, INPUTS, TARGETS)

    for start in range(0, 40, at_once):
        sums.add(x[:, start : start + at_once], y[:, start : start + at_once])
    sums.settle()

    assert sums.count == 40
    np.testing.assert_allclose(sums.square, np.einsum("gni,gnj->gij", x, x))
    np.testing.assert_allclose(sums.cross, np.einsum("gno,gni->goi", y, x))
    np.testing.assert_allclose(sums.target_square, np.square(y).sum(axis=1))
    np.testing.assert_allclose(sums.mean, x.mean(axis=1))
    np.testing.assert_allclose(sums.target_total, y.sum(axis=1))


def test_merged_sums_are_those_of_all_rows_also_of_buffered_ones():
    x, y = draw(7, INPUTS, seed=0), draw(7, TARGETS, seed=1)
    whole, first, second = (Moments.create_empty(GROUPS, INPUTS, TARGETS) for _ in range(3))
    whole.add(x, y)
    first.add(x[:, :3], y[:, :3])
    second.add(x[:, 3:], y[:, 3:])

    first.merge(second)

    assert first.count == whole.count == 7
    np.testing.assert_allclose(first.square, whole.square)
    np.testing.assert_allclose(first.cross, whole.cross)


def test_an_unchanged_graph_has_its_own_inputs_as_targets():
    x = draw(9, INPUTS, seed=0)
    alone, twice = (
        Moments.create_empty(GROUPS, INPUTS),
        Moments.create_empty(GROUPS, INPUTS, INPUTS),
    )
    alone.add(x)
    twice.add(x, x)

    pairs = alone.pair_with_itself()

    for name in ("square", "cross", "target_square", "total", "target_total"):
        np.testing.assert_allclose(getattr(pairs, name), getattr(twice, name))
    assert pairs.count == twice.count == 9


def test_with_few_rows_the_shrunken_moments_of_unseen_directions_are_not_zero():
    x = draw(1, INPUTS, seed=0)
    sums = Moments.create_empty(GROUPS, INPUTS)
    sums.add(x)
    sums.settle()

    assert (np.linalg.eigvalsh(sums.hessian) > 0).all()
    diagonal = np.diagonal(sums.hessian, axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, np.square(x[:, 0]))
