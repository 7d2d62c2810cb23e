"""Paired comparison of two models by a metric: losses, intervals, and when nothing is proven."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.errors import EdgekitError
from edgekit.metrics.comparison import compare
from edgekit.metrics.metric import Margin, Metric, Table, aggregate_sums
from edgekit.metrics.registry import get_metric
from edgekit.metrics.slices import compare_slices
from edgekit_agent.scoring import MetricOptions

OPTIONS = MetricOptions()
TOP1 = get_metric("top1")
# Mean of the first numbers of the rows over that of the second, as MAE and CER.
ERROR = Metric(
    name="error",
    title="error",
    prepare=aggregate_sums(lambda sums: sums[:, 0] / sums[:, 1]),
    compute_trivial=lambda read, options: None,
    higher_is_better=False,
    is_share=False,
    margin=Margin(value=1.0, relative=True),
)


def make_table(rows, groups=None):
    rows = tuple(np.atleast_1d(np.asarray(row, np.float64)) for row in rows)
    return Table(rows=rows, groups=None if groups is None else np.asarray(groups, np.int64))


def make_errors(values, groups=None):
    return make_table([(value, 1) for value in values], groups)


def test_changed_predictions_are_counted_sample_by_sample():
    hits = [True] * 90 + [False] * 10, [False] * 3 + [True] * 88 + [False] * 9
    classes = [1] * 100, [2] * 3 + [1] * 92 + [5] * 5
    before, after = (make_table(np.column_stack(both)) for both in zip(hits, classes, strict=True))

    found = compare(TOP1, before, after, options=OPTIONS, margin=Margin(value=10))

    assert (found.n, found.lost, found.won, found.flips) == (100, 3, 1, 8)
    assert found.drop == pytest.approx(2.0)
    assert found.interval[0] < 2 < found.worst < found.interval[1]
    assert found.proven


def test_equal_accuracy_on_few_samples_is_not_proof_and_says_how_many_would_be():
    same = make_table([(1, 1)] * 45 + [(0, 1)] * 5)

    found = compare(TOP1, same, same, options=OPTIONS)

    assert found.drop == 0
    assert not found.proven
    assert found.needed_samples > 300
    enough = make_table([(1, 1)] * found.needed_samples)
    assert compare(TOP1, enough, enough, options=OPTIONS).proven


def test_with_a_margin_of_nothing_no_number_of_samples_would_do():
    same = make_table([(1, 1)] * 50)

    assert compare(TOP1, same, same, options=OPTIONS, margin=Margin(value=0)).needed_samples is None


def test_a_relative_loss_is_in_percent_of_the_original_and_positive_if_worse():
    rng = np.random.default_rng(0)
    errors = rng.exponential(2.0, 800)
    noise = rng.normal(0, 0.05, 800)

    found = compare(ERROR, make_errors(errors), make_errors(errors * 1.05 + noise), options=OPTIONS)

    assert found.unit == "%"
    assert found.drop == pytest.approx(100 * (found.after / found.before - 1))
    assert found.interval[0] < 5 < found.worst < found.interval[1] < 6
    assert not found.proven
    assert found.needed_samples is None


def test_the_bootstrap_agrees_with_the_interval_of_a_mean():
    rng = np.random.default_rng(1)
    before = rng.normal(10, 1, 500)
    difference = rng.normal(0.01, 0.1, 500)
    half = 1.96 * difference.std(ddof=1) / math.sqrt(500)

    found = compare(
        ERROR,
        make_errors(before),
        make_errors(before + difference),
        options=OPTIONS,
        margin=Margin(value=0.1),
    )

    assert found.unit == ""
    assert found.interval[0] == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert found.interval[1] == pytest.approx(difference.mean() + half, abs=0.1 * half)
    assert found.proven


def test_samples_of_one_group_count_as_one_observation():
    rng = np.random.default_rng(2)
    effects = np.repeat(rng.normal(0, 0.1, 40), 25)
    before = np.full(1000, 10.0)
    after = before + effects + rng.normal(0, 0.01, 1000)
    groups = np.repeat(np.arange(40), 25)

    alone = compare(ERROR, make_errors(before), make_errors(after), options=OPTIONS)
    grouped = compare(
        ERROR, make_errors(before, groups), make_errors(after, groups), options=OPTIONS
    )

    widths = [found.interval[1] - found.interval[0] for found in (alone, grouped)]
    assert (alone.groups, grouped.groups) == (1000, 40)
    assert 4 < widths[1] / widths[0] < 6.5


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    rng = np.random.default_rng(3)
    before = rng.exponential(1, 60)
    tables = make_errors(before), make_errors(before + rng.normal(0, 0.1, 60))

    found = [compare(ERROR, *tables, options=OPTIONS, seed=seed).interval for seed in (5, 5, 6)]

    assert found[0] == found[1] != found[2]


def test_the_original_itself_needs_no_proof_but_an_equal_file_does():
    table = make_errors(np.random.default_rng(4).exponential(1, 30))

    itself = compare(ERROR, table, table, options=OPTIONS, same_model=True)
    other = compare(ERROR, table, table, options=OPTIONS)

    assert itself.proven
    assert itself.interval == (0, 0)
    assert other.drop == 0
    assert other.interval[0] < 0 < other.worst < other.interval[1]
    assert not other.proven
    assert other.needed_samples > 300
    many = make_errors(np.random.default_rng(4).uniform(1, 2, 4 * other.needed_samples))
    assert compare(ERROR, many, many, options=OPTIONS).proven


def test_equal_files_prove_nothing_on_samples_of_equal_errors():
    table = make_errors([2.0] * 20)

    found = compare(ERROR, table, table, options=OPTIONS)

    assert not found.proven
    assert found.worst > 10
    assert "rule of three" in found.method


def test_samples_that_are_not_scored_count_for_neither_model():
    rng = np.random.default_rng(5)
    hits = rng.random((2, 100)) < 0.9
    scored = [make_table(np.column_stack([each, each])) for each in hits]
    with_gaps = [make_table([row for hit in each for row in ((hit, hit), ())]) for each in hits]

    assert compare(TOP1, *with_gaps, options=OPTIONS) == compare(TOP1, *scored, options=OPTIONS)


@pytest.mark.parametrize(
    "other",
    [
        make_table([(1, 0)] * 9),
        make_table([(1, 0)] * 9 + [()]),
        make_table([(1, 0)] * 10, [0] * 10),
    ],
    ids=["fewer", "one not scored", "groups"],
)
def test_tables_of_other_samples_are_not_compared(other):
    with pytest.raises(EdgekitError, match="same samples"):
        compare(TOP1, make_table([(1, 0)] * 10), other, options=OPTIONS)


def test_a_candidate_whose_value_is_undefined_is_never_proven():
    before = make_errors([1.0] * 50)
    after = make_table([(1.0, 0.0)] * 50)

    found = compare(ERROR, before, after, options=OPTIONS)

    assert not found.proven
    assert found.worst == math.inf
    assert "candidate is undefined" in found.method


def test_an_original_without_error_makes_a_margin_in_percent_unprovable():
    found = compare(ERROR, make_errors([0.0] * 50), make_errors([0.1] * 50), options=OPTIONS)

    assert not found.proven
    assert "margin in percent" in found.method


def test_many_undefined_resamples_prove_nothing():
    # One of 30 samples carries the whole denominator: it is missing in a third of the resamples.
    rows = [(1.0, 0.0)] * 29 + [(1.0, 1.0)]
    changed = [(1.0, 0.0)] * 28 + [(0.999, 0.0), (1.0, 1.0)]

    found = compare(
        ERROR,
        make_table(rows),
        make_table(changed),
        options=OPTIONS,
        margin=Margin(value=100, relative=True),
    )

    assert not found.proven
    assert "undefined in 3" in found.method


def test_one_group_is_no_proof():
    before, after = [1.0, 2.0, 3.0], [1.0, 2.0, 3.01]

    found = compare(
        ERROR, make_errors(before, [7] * 3), make_errors(after, [7] * 3), options=OPTIONS
    )

    assert (found.groups, found.proven, found.worst) == (1, False, math.inf)


def test_slices_have_their_own_losses_and_intervals():
    rng = np.random.default_rng(6)
    before = rng.uniform(1, 2, 300)
    lights = np.where(np.arange(300) < 200, "day", "night")
    after = before * np.where(lights == "night", 1.2, 1.0) + rng.normal(0, 0.01, 300)

    found = compare_slices(
        ERROR, make_errors(before), make_errors(after), slices={"light": lights}, options=OPTIONS
    )

    assert list(found) == ["light=day", "light=night"]
    assert (found["light=day"].n, found["light=night"].n) == (200, 100)
    assert found["light=night"].drop == pytest.approx(20, abs=0.5)
    assert found["light=night"].interval[0] > 15
    assert found["light=day"].interval[0] < 0 < found["light=day"].interval[1]
