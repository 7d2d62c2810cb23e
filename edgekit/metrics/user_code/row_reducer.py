"""Metrics of the user: the device returns the outputs, which the user's code turns into rows here.

The outputs of each part are reduced as soon as it arrives, so that only one part is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.dataset import Dataset
from edgekit.data.subsets import select_rows
from edgekit.data.targets import iter_targets
from edgekit.errors import DeviceError, EdgekitError
from edgekit.metrics.metric import Floats
from edgekit.metrics.registry import get_metric
from edgekit.metrics.user_code.calls import Sample, UserCode, stack_samples
from edgekit.metrics.user_code.loader import build_rows
from edgekit_agent.metrics.outputs import decode_outputs
from edgekit_agent.metrics.rows import decode_rows, encode_rows
from edgekit_agent.results import Tally
from edgekit_agent.scoring import MetricJob

# Metric of the agent whose rows hold all outputs.
OUTPUTS = "outputs"
# Most blocks of the jackknife: each has an instance of the class, which gets all other samples.
MOST_BLOCKS = 40


def list_agent_metrics(jobs: Sequence[MetricJob]) -> tuple[MetricJob, ...]:
    """List the metrics for the agent: those of the user are replaced by the outputs, once."""
    asked = (replace(job, name=OUTPUTS) if get_metric(job.name).code else job for job in jobs)
    return tuple(dict.fromkeys(asked))


class RowReducer:
    """Reducer of a model's outputs to the rows of the user's metrics, part by part.

    Args:
        jobs: The metrics.
        dataset: The samples on this machine, with their targets; needed for metrics of the user.
    """

    def __init__(self, jobs: Sequence[MetricJob], dataset: Dataset | None) -> None:
        self._names = tuple(job.name for job in jobs)
        self._dataset = dataset
        metrics = [get_metric(name) for name in self._names]
        self._codes = {metric.name: metric.code for metric in metrics if metric.code}
        if self._codes and dataset is None:
            raise EdgekitError("metrics of the user need the targets of the samples")
        self._joint = {
            metric.name: _JointValue.create(metric.code, dataset)
            for metric in metrics
            if metric.code and metric.code.is_class and dataset
        }

    @property
    def is_resumable(self) -> bool:
        """Return whether the rows of the first samples are enough to continue after them."""
        return not self._joint

    def reduce(self, tally: Tally, start: int) -> Tally:
        """Return the tally of a part with the rows of the scored metrics.

        Args:
            tally: Tally of the agent.
            start: Number of the first sample.

        Raises:
            UserError: The user's code raises an error, or gives a wrong answer.
            DeviceError: The agent's outputs cannot be read.
        """
        if not self._codes or self._dataset is None:
            return tally
        statistics = {each.metric: each for each in tally.statistics}
        outputs = self._decode(tally)
        samples = select_rows(self._dataset.samples, start, tally.n)
        targets = list(iter_targets(samples)) if outputs else []
        for name, code in self._codes.items():
            rows = self._compute_rows(name, code, outputs, targets, start)
            statistics[name] = encode_rows(name, rows)
        chosen = tuple(statistics[name] for name in self._names)
        return replace(tally, metric=self._names[0], statistics=chosen)

    def _decode(self, tally: Tally) -> list[Sample]:
        found = next(each for each in tally.statistics if each.metric == OUTPUTS)
        try:
            return [decode_outputs(row) for row in decode_rows(found, tally.n)]
        except ValueError as error:
            raise DeviceError(f"invalid answer of the agent: {error}") from error

    def _compute_rows(
        self,
        name: str,
        code: UserCode,
        outputs: Sequence[Sample],
        targets: Sequence[Sample],
        start: int,
    ) -> list[Floats]:
        if not outputs:
            return []
        if name in self._joint:
            self._joint[name].update(outputs, targets, start)
            return [np.zeros(0)] * len(outputs)  # known after the last part
        values = code.compute_values(outputs, targets, first=start)
        return [values[place : place + 1] for place in range(values.size)]

    def finish(self, tally: Tally) -> Tally:
        """Return the complete tally with the rows that are known after the last sample alone."""
        done = (
            encode_rows(each.metric, self._joint[each.metric].build_rows())
            if each.metric in self._joint
            else each
            for each in tally.statistics
        )
        return replace(tally, statistics=tuple(done))


@dataclass(kw_only=True)
class _JointValue:
    """Instances of a class of the user: one gets all samples, each other one all but a block."""

    code: UserCode
    blocks: NDArray[np.int64]
    whole: Any
    others: list[Any] = field(default_factory=list)

    @staticmethod
    def create(code: UserCode, dataset: Dataset) -> _JointValue:
        """Create the instances, and divide the groups of samples into blocks."""
        groups = np.arange(dataset.count) if dataset.groups is None else dataset.groups
        inverse = np.unique(groups, return_inverse=True)[1]
        count = int(inverse.max()) + 1
        blocks = min(MOST_BLOCKS, count)
        block_of_group = np.random.default_rng(0).permutation(count) % blocks
        return _JointValue(
            code=code,
            blocks=block_of_group[inverse],
            whole=code.call(code.value),
            others=[code.call(code.value) for _ in range(blocks)],
        )

    def update(self, outputs: Sequence[Sample], targets: Sequence[Sample], start: int) -> None:
        """Give consecutive samples to all instances that they are not left out of."""
        blocks = self.blocks[start : start + len(outputs)]
        self._update_one(self.whole, outputs, targets)
        for number, instance in enumerate(self.others):
            kept = np.flatnonzero(blocks != number).tolist()
            self._update_one(instance, [outputs[i] for i in kept], [targets[i] for i in kept])

    def _update_one(
        self,
        instance: Any,  # noqa: ANN401 - of the user's class
        outputs: Sequence[Sample],
        targets: Sequence[Sample],
    ) -> None:
        if outputs:
            self.code.call(instance.update, stack_samples(outputs), stack_samples(targets))

    def build_rows(self) -> list[Floats]:
        """Return the rows of all samples."""
        value = self.code.read_value(self.whole)
        left_out = np.array([self.code.read_value(each) for each in self.others])
        return build_rows(self.blocks, value, left_out)
