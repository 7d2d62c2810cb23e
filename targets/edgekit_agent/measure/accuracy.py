"""Accuracy of a model: run labeled samples and count the correct predictions. Needs numpy."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from edgekit_agent.codec import encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_atomic
from edgekit_agent.jobs import ScoreJob
from edgekit_agent.measure.feeds import Batch, check_samples, find_batch_size, iter_runs
from edgekit_agent.measure.model_loading import load_model
from edgekit_agent.results import Tally, TallyPart
from edgekit_agent.runtimes import LoadedModel
from edgekit_agent.wire import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays

METRICS = ("top1", "top5", "binary")
# Seconds between two parts of the result: if the link breaks, only the last part is lost.
_PART_EVERY_S = 2.0


def score(job: ScoreJob, progress: Progress) -> Tally:
    """Score every sample from number ``start`` on, at the model's own batch size (1 if it is free).

    Raises:
        AgentError: ``bad_job`` if labels, metric and output don't belong together;
            ``model_failed`` for an output that is not finite, with the number of the sample.
    """
    if job.metric not in METRICS:
        metric_names = ", ".join(METRICS)
        raise AgentError("bad_job", f"unknown metric {job.metric!r}; known: {metric_names}")
    if job.samples.label is None:
        raise AgentError("bad_job", "the samples have no labels to score against")
    progress("load", 0, 0)
    model = load_model(job.model).model
    n = check_samples(job.samples, model.inputs)
    if not 0 <= job.start < n or (job.start and job.outputs_path is not None):
        raise AgentError("bad_job", f"score: cannot start at sample {job.start} of {n}")
    output = _choose_output(model, job.output)
    counted = _HitCounter(job)
    size = find_batch_size(job.samples, model.inputs) or 1
    with _open_outputs(job.outputs_path) as file:
        for batch, outputs in iter_runs(job.samples, model, size, job.start):
            values = _select_output(outputs, output, batch)
            if file is not None:
                _write_rows(file, values, n, is_first=batch.start == 0)
            counted.add(*judge(values, _read_labels(batch), job.metric, batch.start))
            progress("score", counted.next_sample, n, counted.part())
    return counted.tally(0)


class _HitCounter:
    """Counts of the scored samples, and how many of them were already sent as a part."""

    def __init__(self, job: ScoreJob) -> None:
        self._job = job
        self._hits: List[bool] = []
        self._predictions: List[int] = []
        self._told = 0
        self._told_at = time.monotonic()

    @property
    def next_sample(self) -> int:
        """Return the number of the next sample."""
        return self._job.start + len(self._hits)

    def add(self, hits: Sequence[bool], predictions: Sequence[int]) -> None:
        """Add the results of one batch."""
        self._hits.extend(hits)
        self._predictions.extend(predictions)

    def part(self) -> Optional[Dict[str, Any]]:
        """Return the results since the last part as JSON values; ``None`` if that was just now."""
        if time.monotonic() - self._told_at < _PART_EVERY_S:
            return None
        part = TallyPart(self._job.start + self._told, self.tally(self._told))
        self._told, self._told_at = len(self._hits), time.monotonic()
        return encode(part)

    def tally(self, since: int) -> Tally:
        """Count the samples from number ``since`` of this job on."""
        hits = self._hits[since:]
        return Tally(
            self._job.metric,
            len(hits),
            sum(hits),
            hits_to_hex(hits),
            tuple(self._predictions[since:]),
        )


def judge(
    values: NDArray[Any], labels: NDArray[Any], metric: str, start: int = 0
) -> Tuple[List[bool], List[int]]:
    """Find which rows of an output are correct, and the class that each row predicts.

    Args:
        values: outputs, first axis = samples; the other axes are flattened.
        labels: integers, one for each row.
        metric: ``top1``, ``top5`` or ``binary`` (one value; above 0.5 is class 1).
        start: number of the first sample, for messages.

    Returns:
        For each row, whether it is correct and the class with the largest value.

    Raises:
        AgentError: ``bad_job``; metric, labels and outputs don't belong together.
    """
    flat = values.reshape(values.shape[0], -1)
    classes = flat.shape[1]
    if metric == "binary" and classes != 1:
        raise AgentError(
            "bad_job",
            f"metric binary needs one output value, the output has {classes}",
            hint="use top1",
        )
    if metric != "binary" and classes == 1:
        raise AgentError(
            "bad_job",
            f"metric {metric} needs several output values, the output has one",
            hint="use binary",
        )
    _check_range(labels, 2 if metric == "binary" else classes, start)
    predicted = (flat[:, 0] > 0.5) * 1 if metric == "binary" else flat.argmax(axis=1)
    if metric == "top5":
        # As with argmax, the lower class number wins a tie.
        best = np.argsort(-flat.astype(np.float64), axis=1, kind="stable")[:, :5]
        right = (best == labels[:, None]).any(axis=1)
    else:
        right = predicted == labels
    return right.tolist(), predicted.tolist()


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


def _choose_output(model: LoadedModel, output_name: Optional[str]) -> str:
    names = [tensor.name for tensor in model.outputs]
    if output_name is not None and output_name not in names:
        raise AgentError(
            "bad_job", f"the model has no output {output_name!r}, only {', '.join(names)}"
        )
    return output_name if output_name is not None else names[0]


def _select_output(outputs: Arrays, output: str, batch: Batch) -> NDArray[Any]:
    """Return the scored output of a batch without the rows that pad it; check that it is finite."""
    values = np.asarray(outputs[output])
    filled = batch.size
    if values.ndim == 0 or values.shape[0] != filled:
        if filled != 1:
            raise AgentError(
                "bad_job", f"output {output} has shape {values.shape} for a batch of {filled}"
            )
        values = values[None]
    values = values[: batch.rows]
    if values.dtype.kind == "f":
        finite = np.isfinite(values.reshape(batch.rows, -1)).all(axis=1)
        if not finite.all():
            sample = batch.start + int(np.argmin(finite))
            raise AgentError("model_failed", f"output {output} of sample {sample} is not finite")
    return values


def _read_labels(batch: Batch) -> NDArray[Any]:
    labels = batch.labels
    if labels is None or labels.size != batch.rows:
        shape = None if labels is None else labels.shape[1:]
        raise AgentError(
            "bad_job", f"one label per sample is needed, but the labels have shape {shape}"
        )
    labels = labels.reshape(-1)
    integers = labels.astype(np.int64)
    if not np.array_equal(integers, labels):
        raise AgentError("bad_job", "labels must be integers")
    return integers


def _check_range(labels: NDArray[Any], classes: int, start: int) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        first = int(outside[0])
        if not classes:
            raise AgentError(
                "bad_job",
                f"the scored output of sample {start + first} is empty; check the sample axis of "
                "each input, and the initial size of states",
            )
        raise AgentError(
            "bad_job",
            f"label {int(labels[first])} of sample {start + first} must be less than {classes}, "
            "the number of classes",
        )


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
