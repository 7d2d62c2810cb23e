"""Interface of a metric: how the rows of all samples become one value, and how that is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.answers import VALUES, AnswerReader
from edgekit.metrics.user_code.calls import UserCode
from edgekit_agent.scoring import MetricOptions

Floats = NDArray[np.float64]
Targets = Mapping[str, NDArray[Any]]
# Reads the targets of all samples in order; each call starts again. For metrics with
# ``find_fault`` also the inputs, under this prefix and their names.
INPUT = "input:"
TargetReader = Callable[[], Iterator[Targets]]
# Values [b] of the metric for b sets of weights [b, n] of the samples.
Aggregate = Callable[[Floats], Floats]
# Raises ValueError unless the rows of all samples can be those of the statistic.
CheckRows = Callable[[Sequence[Floats], MetricOptions], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Rows of all samples, computed by the statistic of one metric.

    Attributes:
        rows: One row for each sample.
        groups: Number of the group (patient, stream, image) of each sample; ``None`` = each sample
            is one. The samples of a group always have the same weight.
    """

    rows: tuple[Floats, ...]
    groups: NDArray[np.int64] | None = None

    @property
    def n(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    def stack(self) -> Floats:
        """Return the rows as one array [n, k]; all must have the same length."""
        return np.stack(self.rows)

    def select(self, chosen: NDArray[np.bool_]) -> Table:
        """Return the rows of some samples, such as those of a slice."""
        rows = tuple(row for row, keep in zip(self.rows, chosen, strict=True) if keep)
        return replace(self, rows=rows, groups=None if self.groups is None else self.groups[chosen])


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Largest loss that counts as none.

    Attributes:
        value: In points for shares, in percent of the original's value if ``relative``, else in
            the unit of the metric.
        relative: Whether it is relative to the original's value.
    """

    value: float
    relative: bool = False


@dataclass(frozen=True, kw_only=True)
class SampleValue:
    """Value of each sample alone, by which the samples that a candidate changes are found.

    Attributes:
        compute: Computes the values [n] from the rows of samples that are scored; NaN where a
            sample alone has none.
        title: Name of the value in reports; empty if the answers say as much.
        higher_is_better: Direction.
        is_share: Whether values are shares from 0 to 1, shown in percent.
    """

    compute: Callable[[Table, MetricOptions], Floats]
    title: str = ""
    higher_is_better: bool = True
    is_share: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the quality of a model.

    Attributes:
        name: Name of the metric and of the agent's statistic.
        title: Name in reports.
        target: What the target ``y`` of a sample must be, in words.
        prepare: Sorts or stacks the rows once, and returns the function that aggregates them.
        compute_trivial: Computes the value of the best predictor that ignores its input; ``None``
            if there is none to compare with.
        higher_is_better: Direction.
        is_share: Whether values are shares from 0 to 1, shown in percent, with losses in points.
        is_proportion: Whether the first number of a row is 1 or 0 and the value is their mean, so
            that the interval of paired proportions applies.
        margin: Default margin.
        compute_classes: Computes the value of each class, by its number.
        find_blocks: Finds the number of the block of each sample, for a metric whose value is known
            of all samples and without each block alone, so that the jackknife gives the interval.
        prepare_mismatched: Returns the function that aggregates the values of outputs with the
            targets of other samples, ``None`` where they are unknown; the original must be better.
        find_fault: Finds why a model is no better than a constant, where its value alone does not
            tell; the reader yields the inputs too, as ``input:NAME``.
        find_chance: Finds why a value that is better than that of a constant may be chance, where
            the bootstrap of few groups does not tell.
        companions: Metrics of the same rows for a value that is as good where nothing is predicted;
            the original and each candidate must exceed a constant by one of them.
        code: Function or class of the user that computes the metric on this machine, from the
            outputs of the samples.
        check_rows: Checks the rows of a device; ``None`` = every row is taken.
        compares_outputs: Whether the targets are the outputs of the original, so that it needs no
            labels.
        reads_probabilities: Whether it depends on whether scores are logits or probabilities, as
            the option ``logits`` tells.
        takes_texts: Whether targets are texts.
        sample_value: Value of each sample alone; ``None`` = the first number of its row if the
            metric is their mean, else samples cannot be compared.
        answers: Reader of the answers of a model, for examples in the report; ``None`` if they
            cannot be shown.
    """

    name: str
    title: str
    prepare: Callable[[Table, MetricOptions], Aggregate]
    compute_trivial: Callable[[TargetReader, MetricOptions], float | None]
    higher_is_better: bool = True
    is_share: bool = True
    is_proportion: bool = False
    margin: Margin = Margin(value=1.0)
    target: str = ""
    compute_classes: Callable[[Table, MetricOptions], dict[int, float]] | None = None
    find_blocks: Callable[[Table], NDArray[np.int64]] | None = None
    prepare_mismatched: Callable[[Table], Aggregate | None] | None = None
    find_fault: Callable[[Table, TargetReader, MetricOptions], str] | None = None
    find_chance: Callable[[Table, MetricOptions], str] | None = None
    companions: tuple[Metric, ...] = ()
    code: UserCode | None = None
    check_rows: CheckRows | None = None
    compares_outputs: bool = False
    reads_probabilities: bool = False
    takes_texts: bool = False
    sample_value: SampleValue | None = None
    answers: AnswerReader | None = VALUES

    def compute_value(self, table: Table, options: MetricOptions) -> float:
        """Compute the value of all samples."""
        return float(self.prepare(table, options)(np.ones((1, table.n)))[0])

    def get_sample_value(self) -> SampleValue | None:
        """Return how the value of a sample alone is computed; ``None`` if it is not."""
        if self.sample_value is not None or self.prepare is not prepare_first_mean:
            return self.sample_value
        return SampleValue(
            compute=take_first,
            title="" if self.is_proportion else self.title,
            higher_is_better=self.higher_is_better,
            is_share=self.is_share,
        )


def aggregate_mean(values: Floats) -> Aggregate:
    """Return the function that computes the weighted mean of one value for each sample."""
    return lambda weights: np.asarray(weights @ values / weights.sum(axis=1))


def take_first(table: Table, options: MetricOptions) -> Floats:
    """Return the first number of each row."""
    del options
    return np.array([row[0] for row in table.rows])


def prepare_first_mean(table: Table, options: MetricOptions) -> Aggregate:
    """Return the mean of the first number of each row."""
    return aggregate_mean(take_first(table, options))


def build_sums_value(
    compute: Callable[[Floats], Floats], title: str, *, higher_is_better: bool = False
) -> SampleValue:
    """Return the value of a sample alone, for a metric that depends on the sums of the rows.

    Args:
        compute: Values [n] for the rows [n, k].
        title: Name of the value in reports.
        higher_is_better: Direction.
    """

    def compute_values(table: Table, options: MetricOptions) -> Floats:
        del options
        return compute(table.stack())

    return SampleValue(compute=compute_values, title=title, higher_is_better=higher_is_better)


def aggregate_sums(
    compute: Callable[[Floats], Floats],
) -> Callable[[Table, MetricOptions], Aggregate]:
    """Return the ``prepare`` of a metric that depends on the sums of the rows alone.

    Args:
        compute: Values [b] for the sums [b, k] of the rows.
    """

    def prepare(table: Table, options: MetricOptions) -> Aggregate:
        del options
        rows = table.stack()
        return lambda weights: compute(weights @ rows)

    return prepare
