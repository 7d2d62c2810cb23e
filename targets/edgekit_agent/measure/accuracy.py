"""Statistics of a model's answers on samples with targets, for every metric. Needs numpy."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, List, Optional, Sequence

import numpy as np

from edgekit_agent.codec import encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_atomic
from edgekit_agent.measure.feeds import Batch, check_samples, find_batch_size, iter_runs
from edgekit_agent.measure.model_loading import load_model
from edgekit_agent.measure.scored_samples import iter_scored_samples, select_output
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.metrics.rows import MOST_VALUES, PIECE_VALUES, encode_rows, get_rest, iter_pieces
from edgekit_agent.scoring import MetricJob, MetricOptions
from edgekit_agent.wire import Progress
from edgekit_agent.worker_jobs import ScoreJob
from edgekit_agent.worker_results import Tally, TallyPart

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import Statistic
    from edgekit_agent.runtimes import Arrays, LoadedModel

# The metrics of protocol 1.0.
OLD_METRICS = ("top1", "top5", "binary")
# Seconds between two parts of the result: if the link breaks, only the last part is lost.
_PART_EVERY_S = 2.0
# With this many values a part is sent earlier, so that rows do not fill the memory.
_PART_VALUES = 1 << 16


def score(job: ScoreJob, progress: Progress) -> Tally:
    """Run every sample from number ``start`` on, at the model's own batch size (1 if it is free).

    Returns:
        The rows of the samples that no part in a progress report had.

    Raises:
        AgentError: ``bad_job`` if targets, metric and output don't belong together;
            ``model_failed`` for an output that is not finite, with the number of the sample.
    """
    if not job.metrics and job.metric not in OLD_METRICS:
        known = ", ".join(OLD_METRICS)
        raise AgentError("bad_job", f"unknown metric {job.metric!r}; known: {known}")
    progress("load", 0, 0)
    return score_model(job, _load(job), progress)


def score_model(job: ScoreJob, model: LoadedModel, progress: Progress) -> Tally:
    """Score a model that is loaded already; see ``score``."""
    n = check_samples(job.samples, model.inputs)
    if not 0 <= job.start < n or (job.start and job.outputs_path is not None):
        raise AgentError("bad_job", f"score: cannot start at sample {job.start} of {n}")
    if job.samples.lengths and job.outputs_path is not None:
        raise AgentError("bad_job", "score: outputs of different sizes do not fit into one .npy")
    rows = _RowCollector(job)
    size = find_batch_size(job.samples, model.inputs) or 1
    with _open_outputs(job.outputs_path) as file:
        for batch, outputs in iter_runs(job.samples, model, size, job.start):
            if file is not None:
                values = select_output(outputs, job.output, batch)
                _write_rows(file, values, n, is_first=batch.start == 0)
            for sample in rows.iter_samples(batch, outputs):
                for part in rows.add(sample):
                    progress("score", rows.next_sample, n, part)
                if rows.is_full:
                    progress("score", rows.next_sample, n, rows.take_part())
            progress("score", rows.next_sample, n, rows.take_part())
    return rows.take()


def _load(job: ScoreJob) -> LoadedModel:
    """Load the model, or all models and the function that combines them."""
    if job.combination is None:
        return load_model(job.model).model
    from edgekit_agent.measure.combined_model import load_combined_model

    return load_combined_model(job.combination, job.samples)


def _load_statistic(metric: MetricJob) -> Statistic:
    if metric.code is None:
        return load_statistic(metric.name)
    from edgekit_agent.metrics.user_code import load_user_statistic

    return load_user_statistic(metric.code)


class _RowCollector:
    """Rows of the scored samples that were not sent yet, for each metric."""

    def __init__(self, job: ScoreJob) -> None:
        old = MetricJob(job.metric, MetricOptions(output=job.output))
        self._job = job
        self._metrics = job.metrics or (old,)
        self._statistics = [_load_statistic(metric) for metric in self._metrics]
        self._outputs = tuple(dict.fromkeys(metric.options.output for metric in self._metrics))
        self._rows: List[List[NDArray[np.float64]]] = [[] for _ in self._metrics]
        self._first = job.start
        self._values = 0
        self._sent_at = time.monotonic()

    @property
    def next_sample(self) -> int:
        """Return the number of the next sample."""
        return self._first + len(self._rows[0])

    @property
    def is_full(self) -> bool:
        """Return whether the rows are so many values that they should be sent at once."""
        return bool(self._job.metrics) and self._values >= _PART_VALUES

    def iter_samples(self, batch: Batch, outputs: Arrays) -> Iterator[ScoredSample]:
        """Yield the samples of a batch as the metrics read them."""
        return iter_scored_samples(batch, outputs, self._outputs, self._job.postprocess)

    def add(self, sample: ScoredSample) -> Iterator[Dict[str, Any]]:
        """Compute the rows of one sample; yield parts that must be sent, if they are very long."""
        found = []
        for metric, statistic in zip(self._metrics, self._statistics):
            row = np.asarray(statistic(sample, metric.options), np.float64)
            if not np.isfinite(row).all():
                raise AgentError(
                    "model_failed", f"{metric.name} of sample {sample.number} is not finite"
                )
            found.append(row)
        self._check_size(sample, found)
        is_long = bool(self._job.metrics) and any(row.size > PIECE_VALUES for row in found)
        if is_long and self._rows[0]:
            yield self._make_part()
        for metric, row, rows in zip(self._metrics, found, self._rows):
            if is_long:
                for piece in iter_pieces(metric.name, row):
                    yield encode(TallyPart(self._first, Tally(self._job.metric, 0), piece))
            rows.append(get_rest(row) if is_long else row)
            self._values += rows[-1].size
        if is_long:
            yield self._make_part()

    def _check_size(self, sample: ScoredSample, rows: Sequence[NDArray[np.float64]]) -> None:
        size = sum(row.size for row in rows)
        if size > MOST_VALUES:
            names = " and ".join(metric.name for metric in self._metrics)
            raise AgentError(
                "bad_job",
                f"{names} of sample {sample.number} need {size:,} numbers, and a sample can have "
                f"{MOST_VALUES:,}",
                hint="use a metric that needs less of each sample, such as miou instead of "
                "macro-f1 for masks, or smaller outputs",
            )

    def take_part(self) -> Optional[Dict[str, Any]]:
        """Return the rows since the last part as JSON values; ``None`` if that was just now.

        A host of protocol 1.0 gets no parts: it expects all samples in the result.
        """
        is_due = time.monotonic() - self._sent_at >= _PART_EVERY_S
        if not self._job.metrics or not (is_due or self.is_full):
            return None
        return self._make_part()

    def _make_part(self) -> Dict[str, Any]:
        part = TallyPart(self._first, self.take())
        self._first += part.tally.n
        self._rows = [[] for _ in self._metrics]
        self._values, self._sent_at = 0, time.monotonic()
        return encode(part)

    def take(self) -> Tally:
        """Return the rows that no part had."""
        n, named = len(self._rows[0]), list(zip(self._metrics, self._rows))
        if self._job.metrics:
            statistics = tuple(encode_rows(metric.name, rows) for metric, rows in named)
            return Tally(self._metrics[0].name, n, statistics=statistics)
        hits = [bool(row[0]) for row in self._rows[0]]
        predictions = tuple(int(row[1]) for row in self._rows[0])
        return Tally(self._job.metric, n, sum(hits), hits_to_hex(hits), predictions)


def hits_to_hex(hits: Sequence[bool]) -> str:
    """Encode hits as a bitmap in hex: first sample = most significant bit of the first byte."""
    packed: bytes = np.packbits(np.asarray(hits, dtype=bool)).tobytes()
    return packed.hex()


def hits_from_hex(text: str, n: int) -> NDArray[np.bool_]:
    """Decode the bitmap that ``hits_to_hex`` wrote: for each sample, whether it is correct.

    Raises:
        ValueError: not the bitmap of ``n`` samples.
    """
    packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    if packed.size != (n + 7) // 8:
        raise ValueError(f"{packed.size} bytes are not a bitmap of {n} samples")
    return np.unpackbits(packed, count=n).astype(bool)


@contextlib.contextmanager
def _open_outputs(path: Optional[str]) -> Iterator[Optional[BinaryIO]]:
    if path is None:
        yield None
        return
    with open_atomic(os.path.expanduser(path)) as file:
        yield file


def _write_rows(file: BinaryIO, values: NDArray[Any], n: int, *, is_first: bool) -> None:
    if is_first:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, *values.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
    file.write(np.ascontiguousarray(values, "<f4").tobytes())
