"""Validation of a device's answers: lines from the agent become typed, bounded records.

A device may be broken or compromised. Everything that it sends is checked here, once: length,
nesting depth, types, the range of every number, and whether the answer fits the job. Text is made
printable.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from edgekit.errors import DeviceError
from edgekit.printable import escape_text
from edgekit.remote.agent_version import asks_for_app, make_old_agent_error
from edgekit_agent import strictjson
from edgekit_agent.codec import decode
from edgekit_agent.jobs import ForgetJob, PlanJob, ProbeJob, ReceiveJob
from edgekit_agent.measure.accuracy import OLD_METRICS
from edgekit_agent.metrics.rows import MOST_PIECES, PIECE_VALUES, decode_rows
from edgekit_agent.protocol import PROTOCOL, Version
from edgekit_agent.results import DeviceFacts, Greeting, Plan
from edgekit_agent.scoring import MetricJob, MetricOptions
from edgekit_agent.worker_jobs import BenchJob, ScoreJob
from edgekit_agent.worker_results import Health, Latency, Report, StageProgress, Tally, TallyPart

R = TypeVar("R")

# The limit of one line of an answer, and the bytes that each sample or timed run adds to it.
_LINE_BYTES = 1 << 20
_BYTES_PER_VALUE = 32
# Arrays and objects in one line: each takes 100 bytes of memory for 2 bytes of the line.
_MOST_CONTAINERS = 20_000
_LONGEST_TEXT, _LONGEST_KEY = 4096, 100
_MOST_CORES = 1 << 16
# Time limits of a job and of a job that runs no model, then the time that each sample or timed run
# and each byte sent adds.
_JOB_S, _QUESTION_S = 3600.0, 900.0
_S_PER_VALUE, _S_PER_BYTE = 60.0, 1 / 1024
# An agent reports progress twice a second and once per stage.
_MOST_LINES, _LINES_PER_S = 1000, 4.0
_LONGEST_STAGE = 200
# Further bytes of a line with the rows of a part.
_ROWS_BYTES = 64 << 20
# Characters of a piece of a row: 8 bytes for each value in base64.
_PIECE_TEXT = PIECE_VALUES * 8 // 3 * 4
# Fields with encoded numbers, which are not shortened.
_ENCODED = ("hits", "values", "lengths")
_BASE64 = re.compile(r"[0-9A-Za-z+/]*={0,2}")
_GREETING = b'{"edgekit": {'


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of the answer to one job: seconds in total, and bytes per line."""

    total_s: float = _JOB_S
    line_bytes: int = _LINE_BYTES
    more_lines: int = 0


class LimitTracker:
    """Time and number of lines that one job has used, against its limits.

    Attributes:
        bounds: the limits of the job.
        job: the job; ``None`` for the start of the agent.
    """

    def __init__(self, bounds: Bounds, job: object = None) -> None:
        self.bounds, self.job = bounds, job
        self._started = time.monotonic()
        self._lines = 0

    def remaining_s(self) -> float:
        """Return the seconds left; zero or less once the time is over."""
        return self._started + self.bounds.total_s - time.monotonic()

    def count_line(self) -> bool:
        """Count a line; return False if the agent sent more lines than the limit."""
        self._lines += 1
        elapsed = time.monotonic() - self._started
        return self._lines <= _MOST_LINES + self.bounds.more_lines + _LINES_PER_S * elapsed


def bounds_of(job: object) -> Bounds:
    """Return the limits of the answer to a job, which grow with its amount of work."""
    if isinstance(job, ScoreJob):
        samples = _count_samples(job)
        bounds = _make_bounds(values=samples, steps=samples)
        # A part has the rows of whole batches, and is sent as soon as they are many.
        line_bytes = bounds.line_bytes + _ROWS_BYTES * bool(job.metrics)
        return replace(bounds, line_bytes=line_bytes, more_lines=samples * (1 + MOST_PIECES))
    if isinstance(job, BenchJob):
        return _make_bounds(
            values=job.max_runs, steps=job.min_runs, more_s=job.warmup_s + job.seconds
        )
    if isinstance(job, ReceiveJob):
        return Bounds(total_s=_JOB_S + _S_PER_BYTE * sum(b.wire_size for b in job.blobs))
    if isinstance(job, (ProbeJob, PlanJob, ForgetJob)):
        return Bounds(total_s=_QUESTION_S)
    return Bounds()


def _make_bounds(*, values: int, steps: int, more_s: float = 0.0) -> Bounds:
    return Bounds(
        total_s=_JOB_S + _S_PER_VALUE * steps + more_s,
        line_bytes=_LINE_BYTES + _BYTES_PER_VALUE * values,
    )


def _count_samples(job: ScoreJob) -> int:
    column = job.samples.label or job.samples.columns[0]
    return max(0, column.shape[0] - job.start)


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse a JSON object whose texts are made printable and whose numbers fit into 64 bits.

    Raises:
        ValueError: the line is not such an object, or it is nested too deeply.
    """
    if line.count(b"[") + line.count(b"{") > _MOST_CONTAINERS:
        raise ValueError("it contains too many arrays and objects")
    try:
        value = strictjson.loads(line)
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        return {escape_text(key[:_LONGEST_KEY]): _clean(v, key) for key, v in value.items()}
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _clean(value: Any, key: str = "") -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        if key in _ENCODED and _BASE64.fullmatch(value):
            return value
        return escape_text(_shorten(value))
    if isinstance(value, list):
        return [_clean(v) for v in value]
    if isinstance(value, dict):
        return {escape_text(k[:_LONGEST_KEY]): _clean(v, k) for k, v in value.items()}
    return value


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def find_greeting(line: bytes) -> Greeting | None:
    """Find the agent's greeting at the end of a line; a login script may have printed before it.

    Returns:
        The greeting, or None if the line has none.

    Raises:
        ValueError: the greeting has a wrong field, or its home is not an absolute path.
    """
    start = line.rfind(_GREETING)
    if start < 0:
        return None
    try:
        message = parse_line(line[start:])
    except ValueError:  # output of a login script
        return None
    greeting = decode(Greeting, message["edgekit"])
    if greeting.home is not None and not greeting.home.startswith("/"):
        raise ValueError(f"home: {greeting.home!r} is not an absolute path")
    return greeting


def read_progress(value: object, job: object, *, peer: Version = PROTOCOL) -> StageProgress:
    """Read a progress report of an agent that speaks a version of the protocol.

    Raises:
        ValueError: a field is missing, unknown, of another type or out of range, or a part of the
            result does not fit the job.
    """
    said = decode(StageProgress, value, peer=peer)
    _check(said.done >= 0 and said.total >= 0, "progress: the count is negative")
    if said.part is not None:
        _check(isinstance(job, ScoreJob), "progress: the job has no parts")
        _check_part(said.part, cast(ScoreJob, job))
        _check_record(said.part.tally)
    return replace(said, stage=said.stage[:_LONGEST_STAGE])


def read_result(cls: type[R], value: object, job: object, *, peer: Version = PROTOCOL) -> R:
    """Read the record that answers a job.

    Args:
        cls: the type of the record.
        value: the JSON value that the agent sent.
        job: the job that the record must fit.
        peer: the version of the protocol that the agent speaks.

    Raises:
        ValueError: a field is missing, unknown, of another type or out of range, or the answer
            does not fit the job.
    """
    record = decode(cls, value, peer=peer)
    _check_fits(record, job)
    _check_record(record)
    return record


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _check_record(record: object) -> None:
    """Check the values of a record and of all records inside it."""
    if isinstance(record, tuple):
        for each in record:
            if not is_dataclass(each):
                return
            _check_record(each)
    if not is_dataclass(record):
        return
    check_fields(record)
    for field in fields(record):
        _check_record(getattr(record, field.name))


@functools.singledispatch
def check_fields(record: object) -> None:
    """Check the values of one record by its type; types without a rule have no limits."""
    del record


@check_fields.register
def _(facts: DeviceFacts) -> None:
    _check(1 <= facts.cores <= _MOST_CORES, f"{facts.cores} cores")
    _check(facts.pointer_bits in (32, 64), f"{facts.pointer_bits} bits")
    known = re.fullmatch(r"[0-9]\.[0-9]{1,2}(\..*)?", facts.python) is not None
    _check(known, f"{facts.python!r} is not a version of Python")
    named = re.fullmatch(r"[\w.+-]{1,64}", facts.machine, re.ASCII) is not None
    _check(named, f"{facts.machine!r} is not the name of an architecture")
    _check_counts(facts.memory_bytes, facts.free_memory_bytes, facts.free_disk_bytes)


@check_fields.register
def _(latency: Latency) -> None:
    _check(bool(latency.values_ms), "the latencies are missing")
    _check(all(0 <= v <= 1e9 for v in latency.values_ms), "a latency is out of range")
    _check(0 <= latency.load_ms <= 1e9, "the load time is out of range")
    _check_counts(latency.threads, latency.warmup_runs)


@check_fields.register
def _(report: Report) -> None:
    _check_counts(report.peak_rss_bytes, report.runtime_rss_bytes)
    _check(report.energy_mj is None or 0 <= report.energy_mj <= 1e12, "the energy is out of range")


@check_fields.register
def _(tally: Tally) -> None:
    if tally.statistics:
        _check(tally.n >= 0, "the number of samples is negative")
        for each in tally.statistics:
            decode_rows(each, tally.n)
        return
    _check(0 <= tally.correct <= tally.n == len(tally.predictions), "the counts are inconsistent")
    digits = re.fullmatch(r"[0-9a-f]*", tally.hits) is not None
    _check(digits and len(tally.hits) == 2 * ((tally.n + 7) // 8), "hits: not a valid bitmap")
    hits = int(tally.hits or "0", 16)
    _check(hits.bit_count() == tally.correct, "the counts are inconsistent")


@check_fields.register
def _(health: Health) -> None:
    _check(0 <= health.relative_error <= 1e12, "the relative error is out of range")


def _check_counts(*counts: int | None) -> None:
    _check(all(c is None or c >= 0 for c in counts), "a count is negative")


_Fits = Callable[[Any, Any], None]


def _check_plan(plan: Plan, job: PlanJob) -> None:
    _check(len(plan.present) == len(job.blobs), "the install plan lists other files")
    held: Iterable[tuple[int, Any]] = zip(plan.present, job.blobs, strict=True)
    _check(
        all(-1 <= at <= blob.wire_size for at, blob in held), "the install plan lists other sizes"
    )


def _check_tally(tally: Tally, job: ScoreJob) -> None:
    _check(tally.metric == job.metric, f"the metric is {tally.metric}")
    if not tally.statistics:  # an agent of protocol 1.0
        _check(
            _is_known_to_first(job),
            "it has no statistics; an agent of protocol 1.0 knows top1, top5 and binary alone, "
            "without options and post-processing",
        )
        _check(tally.n == _count_samples(job), f"the result covers {tally.n} samples")
        return
    names = tuple(each.metric for each in tally.statistics)
    _check(names == tuple(m.name for m in job.metrics), f"the metrics are {', '.join(names)}")
    # Samples of earlier parts are not in the result.
    _check(0 <= tally.n <= _count_samples(job), f"the result covers {tally.n} samples")


def _check_part(part: TallyPart, job: ScoreJob) -> None:
    end = part.start + part.tally.n
    covered = 0 <= part.start <= end <= job.start + _count_samples(job)
    _check(covered, f"a part of the result has samples {part.start} to {end}")
    if part.piece is not None:
        known = part.piece.metric in [metric.name for metric in job.metrics]
        _check(known and not part.tally.n, "a piece of the result is of another metric")
        _check(len(part.piece.values) == _PIECE_TEXT, "a piece of the result has another size")
        return
    _check(bool(part.tally.statistics), "a part of the result has no statistics")
    _check_tally(part.tally, job)


def check_known_to_first(name: str, job: object) -> None:
    """Check that an agent of protocol 1.0 knows all that a job asks for.

    Raises:
        DeviceError: it does not.
    """
    if isinstance(job, ScoreJob) and not _is_known_to_first(job):
        raise DeviceError(
            f"{name}: its agent of protocol 1.0 cannot score {job.metric} so",
            hint="it knows top1, top5 and binary alone, without options and post-processing; "
            "upgrade edgekit on the device",
        )
    if asks_for_app(job):
        raise make_old_agent_error(name)
    if isinstance(job, (ScoreJob, BenchJob)) and job.samples and job.samples.lengths:
        raise DeviceError(
            f"{name}: its agent of protocol 1.0 cannot run samples of different sizes",
            hint="upgrade edgekit on the device",
        )


def _is_known_to_first(job: ScoreJob) -> bool:
    """Return whether an agent of protocol 1.0 knows all that the job asks for."""
    plain = MetricJob(job.metric, MetricOptions(output=job.output))
    asked = job.metrics or (plain,)
    return job.metric in OLD_METRICS and asked == (plain,) and job.postprocess is None


def _check_report(report: Report, job: BenchJob) -> None:
    _check(
        len(report.latency.values_ms) <= max(job.max_runs, job.min_runs),
        "it contains too many runs",
    )


_FITS: dict[type, _Fits] = {
    PlanJob: _check_plan,
    ScoreJob: _check_tally,
    BenchJob: _check_report,
}


def _check_fits(record: object, job: object) -> None:
    check = _FITS.get(type(job))
    if check is not None:
        check(record, job)
