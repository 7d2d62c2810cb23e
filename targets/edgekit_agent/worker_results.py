"""Results of a worker process, and failures of every job; see ``results`` for the others.

Units are in the names; ``digest`` is always the sha256 of a file's bytes in hex.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple

from edgekit_agent.protocol import mark_added


@dataclass(frozen=True)
class Latency:
    """Raw times of single inferences in one process, in order.

    ``doubts`` lists reasons to distrust the times: ``throttled``, ``loaded``, ``drifting``,
    ``unsteady``.
    """

    values_ms: Tuple[float, ...]
    threads: int
    warmup_runs: int
    load_ms: float
    doubts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Latency, memory and energy measured by a bench job, in a process of its own."""

    latency: Latency
    peak_rss_bytes: int
    runtime_rss_bytes: int  # after importing the runtime, before the model is loaded
    runtime: str
    runtime_version: str
    energy_mj: Optional[float] = None  # per inference, if the device has a sensor


@dataclass(frozen=True)
class Statistics:
    """Rows of numbers that one metric needs, one row for each sample.

    Attributes:
        metric: name of the metric.
        values: the rows one after the other, as base64 of little-endian float64.
        lengths: length of each row, as base64 of little-endian uint32; empty where all are equal.
    """

    metric: str
    values: str
    lengths: str = ""


@dataclass(frozen=True)
class Tally:
    """Statistics of the samples of a score job, by each of its metrics.

    In protocol 1.0 there are no ``statistics``. There, ``hits`` tells which predictions are
    correct, as a bitmap in hex, first sample = most significant bit of the first byte, and
    ``predictions`` holds the class of each sample.
    """

    metric: str
    n: int
    correct: int = 0
    hits: str = ""
    predictions: Tuple[int, ...] = ()
    statistics: Tuple[Statistics, ...] = field(default=(), metadata=mark_added())


@dataclass(frozen=True)
class TallyPart:
    """The tally of the samples from number ``start`` on, scored since the previous part.

    A row of very many values is sent in pieces, so that little memory is needed: ``piece`` holds
    the next values of the row of sample ``start``, and the tally no sample. The part with the
    sample has the rest of its row. Pieces have whole numbers and no padding, so that their texts
    are joined as they are.
    """

    start: int
    tally: Tally
    piece: Optional[Statistics] = field(default=None, metadata=mark_added())


@dataclass(frozen=True)
class StageProgress:
    """Progress of a job: amount done of a stage, and its total (0 = not known).

    ``part`` is a part of the result that is known already.
    """

    stage: str
    done: int = 0
    total: int = 0
    part: Optional[TallyPart] = None


@dataclass(frozen=True)
class Health:
    """Error of the outputs on golden samples against those of the host."""

    healthy: bool
    relative_error: float
    detail: str = ""


@dataclass(frozen=True)
class ExpandResult:
    """Size of an unpacked blob."""

    size: int


@dataclass(frozen=True)
class Failure:
    """The reason of a failed job. ``kind`` is stable; ``transient``: a retry may help."""

    kind: str
    message: str
    hint: str = ""
    transient: bool = False
