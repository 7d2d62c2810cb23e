"""Metrics of the user: the device returns the outputs, which the user's code turns into rows here.

The outputs of each part are reduced as soon as it arrives, so that only one part is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.dataset import Dataset
from edgekit.data.subsets import select_rows
from edgekit.data.targets import iter_targets
from edgekit.errors import DeviceError, EdgekitError, UserError
from edgekit.metrics.metric import Floats
from edgekit.metrics.registry import get_metric
from edgekit.metrics.user_code.calls import Sample, UserCode, stack_samples
from edgekit.metrics.user_code.loader import build_rows
from edgekit_agent.metrics.outputs import OUTPUTS, decode_outputs
from edgekit_agent.metrics.rows import decode_rows, encode_rows
from edgekit_agent.scoring import MetricJob
from edgekit_agent.worker_results import Tally

# Memory for the targets of other samples.
_OTHER_BYTES = 16 << 20
_FEWEST_OTHERS = 8
# Most blocks of the jackknife: each has an instance of the class, which gets all other samples.
MOST_BLOCKS = 40


def list_agent_metrics(
    jobs: Sequence[MetricJob], *, sends_code: bool = False
) -> tuple[MetricJob, ...]:
    """List the metrics for the agent: those of the user are replaced by the outputs, once.

    Args:
        jobs: The metrics.
        sends_code: Whether the code of the user is sent instead, to run beside the model.

    Raises:
        UserError: The code cannot be sent.
    """
    return tuple(dict.fromkeys(_make_agent_metric(job, sends_code=sends_code) for job in jobs))


def _make_agent_metric(job: MetricJob, *, sends_code: bool) -> MetricJob:
    code = get_metric(job.name).code
    if code is None:
        return job
    return replace(job, code=code.read_files()) if sends_code else replace(job, name=OUTPUTS)


class RowReducer:
    """Reducer of a model's outputs to the rows of the user's metrics, part by part.

    Args:
        jobs: The metrics.
        dataset: The samples on this machine, with their targets; needed for metrics of the user.
        sends_code: Whether the agent runs the code of the user, so that nothing is to reduce.
    """

    def __init__(
        self, jobs: Sequence[MetricJob], dataset: Dataset | None, *, sends_code: bool = False
    ) -> None:
        self._names = tuple(job.name for job in jobs)
        self._dataset = dataset
        self._outputs: tuple[str, ...] = ()
        metrics = [get_metric(name) for name in self._names]
        codes = {metric.name: metric.code for metric in metrics if metric.code}
        self._codes = {} if sends_code else codes
        if self._codes and dataset is None:
            raise EdgekitError("metrics of the user need the targets of the samples")
        others = _OtherTargets(dataset) if dataset else None
        self._others = {
            name: others for name, code in self._codes.items() if code.uses_targets and others
        }
        self._joint = {
            metric.name: _JointValue.create(metric.code, dataset)
            for metric in metrics
            if metric.name in self._codes and metric.code and metric.code.is_class and dataset
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
        """Decode the outputs of all samples, which all must have the same ones.

        Raises:
            DeviceError: They cannot be decoded.
        """
        found = next(each for each in tally.statistics if each.metric == OUTPUTS)
        try:
            samples: list[Sample] = [decode_outputs(row) for row in decode_rows(found, tally.n)]
            for sample in samples:
                self._outputs = self._outputs or tuple(sample)
                if tuple(sample) != self._outputs:
                    raise ValueError("samples have different outputs")
        except ValueError as error:
            raise DeviceError(f"invalid answer of the agent: {error}") from error
        return samples

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
            others = self._others[name].get(start, len(outputs)) if name in self._others else None
            self._joint[name].update(outputs, targets, others, start)
            return [np.zeros(0)] * len(outputs)  # known after the last part
        columns = [code.compute_values(outputs, targets, first=start)]
        if name in self._others:
            try:
                others = self._others[name].get(start, len(outputs))
                columns.append(code.compute_values(outputs, others, first=start))
            except UserError:  # outputs and targets of different samples do not fit in shape
                del self._others[name]
        return list(np.stack(columns, axis=1))

    def finish(self, tally: Tally) -> Tally:
        """Return the complete tally with the rows that are known after the last sample alone."""
        done = (
            encode_rows(each.metric, self._joint[each.metric].build_rows())
            if each.metric in self._joint
            else each
            for each in tally.statistics
        )
        return replace(tally, statistics=tuple(done))


class _OtherTargets:
    """Targets of other samples: all in another order, or some of them if they are large."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._found: list[Sample] = []

    def get(self, start: int, count: int) -> list[Sample]:
        """Return a target of another sample for each sample from ``start`` on."""
        if not self._found:
            self._found = self._read()
        return [self._found[(start + place) % len(self._found)] for place in range(count)]

    def _read(self) -> list[Sample]:
        columns = self._dataset.samples.get_targets().values()
        sizes = (np.dtype(c.dtype).itemsize * math.prod(c.shape[1:]) for c in columns)
        count = max(_FEWEST_OTHERS, _OTHER_BYTES // max(1, sum(sizes)))
        chosen = np.random.default_rng(0).permutation(self._dataset.count)[:count].tolist()
        wanted = set(chosen)
        found = {
            number: targets
            for number, targets in enumerate(self._dataset.read_targets())
            if number in wanted
        }
        return [found[number] for number in chosen]


@dataclass(kw_only=True)
class _JointValue:
    """Instances of a class of the user.

    One gets all samples, each of ``partial`` all but a block, and ``mismatched`` each sample with
    the target of another one.
    """

    code: UserCode
    blocks: NDArray[np.int64]
    whole: Any
    partial: list[Any] = field(default_factory=list)
    mismatched: Any = None

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
            partial=[code.call(code.value) for _ in range(blocks)],
            mismatched=code.call(code.value) if code.uses_targets else None,
        )

    def update(
        self,
        outputs: Sequence[Sample],
        targets: Sequence[Sample],
        others: Sequence[Sample] | None,
        start: int,
    ) -> None:
        """Give consecutive samples to all instances that they are not left out of.

        Args:
            outputs: Outputs of the samples.
            targets: Their targets.
            others: Targets of other samples, if they are known.
            start: Number of the first sample.
        """
        if self.mismatched is not None and others is not None:
            try:
                self._update_one(self.mismatched, outputs, others)
            except UserError:  # outputs and targets of different samples do not fit in shape
                self.mismatched = None
        blocks = self.blocks[start : start + len(outputs)]
        self._update_one(self.whole, outputs, targets)
        for number, instance in enumerate(self.partial):
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
        left_out = np.array([self.code.read_value(each) for each in self.partial])
        try:
            other = None if self.mismatched is None else self.code.read_value(self.mismatched)
        except UserError:  # undefined for targets of other samples
            other = None
        return build_rows(self.blocks, value, left_out, other)
