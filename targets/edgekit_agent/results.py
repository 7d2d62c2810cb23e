"""Results that the agent gives back to the host; ``codec`` is their JSON form.

Units are in the names; ``digest`` is always the sha256 of a file's bytes in hex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from edgekit_agent.jobs import NamedBlob
from edgekit_agent.provenance import Provenance


@dataclass(frozen=True)
class RuntimeFacts:
    """A runtime found on a device. ``works`` means: an interpreter could be constructed."""

    name: str
    version: str
    package: str
    site: Optional[str]
    works: bool
    detail: str = ""


@dataclass(frozen=True)
class DeviceFacts:
    """What a device is. A figure that the device does not tell is ``None``."""

    machine: str
    system: str
    kernel: str
    libc: str  # "glibc 2.36", "musl 1.2.4", ""
    python: str
    pointer_bits: int
    cpu: str
    cores: int
    isa: Tuple[str, ...]
    memory_bytes: Optional[int]
    free_memory_bytes: Optional[int]
    free_disk_bytes: Optional[int]
    governor: Optional[str]
    temperature_c: Optional[float]
    load_1min: Optional[float]
    runtimes: Tuple[RuntimeFacts, ...]


@dataclass(frozen=True)
class Latency:
    """Raw times of single inferences of one process, in the order they were taken.

    ``doubts`` names what speaks against the figures: ``throttled``, ``loaded``, ``drifting``,
    ``unsteady``.
    """

    values_ms: Tuple[float, ...]
    threads: int
    warmup_runs: int
    load_ms: float
    doubts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a bench job measured, in a process of its own."""

    latency: Latency
    peak_rss_bytes: int
    runtime_rss_bytes: int  # after importing the runtime, before the model is loaded
    runtime: str
    runtime_version: str
    energy_mj: Optional[float] = None  # a run, where the device has a sensor


@dataclass(frozen=True)
class Tally:
    """How often a model was right, as counts, on the samples that the job asked for.

    ``hits`` is a bitmap in hex, first sample = most significant bit of the first byte, so that
    two models can be compared sample by sample. ``predictions`` holds the class of each sample.
    """

    metric: str
    n: int
    correct: int
    hits: str
    predictions: Tuple[int, ...] = ()


@dataclass(frozen=True)
class TallyPart:
    """The samples from number ``start`` on that were scored since the part before, as a tally."""

    start: int
    tally: Tally


@dataclass(frozen=True)
class Health:
    """How far the canaries' outputs are from those of the host."""

    healthy: bool
    relative_error: float
    detail: str = ""


@dataclass(frozen=True)
class Plan:
    """For each blob of the question the bytes the device holds; -1 = all, verified."""

    present: Tuple[int, ...]
    free_bytes: int


@dataclass(frozen=True)
class Received:
    """How many blobs and bytes came in."""

    blobs: int
    wire_bytes: int


@dataclass(frozen=True)
class Expanded:
    """How large a packed blob has become."""

    size: int


@dataclass(frozen=True)
class Forgotten:
    """``kept``: digests of objects that stay, because a release is or may be made of them."""

    kept: Tuple[str, ...]


@dataclass(frozen=True)
class Release:
    """A release on a device. ``runtime`` and the rest are what it was installed with.

    Where its record is damaged only the name is known; ``model`` is empty then.
    """

    name: str
    model: str
    runtime: str
    threads: int
    site: Optional[str]
    canaries: str
    installed_at: str  # UTC, ISO 8601
    files: Tuple[NamedBlob, ...] = ()
    max_relative_error: float = 0.1
    runtime_version: str = ""


@dataclass(frozen=True)
class Status:
    """What a device serves (``current``) and what it can go back to (``previous``).

    ``current_model`` and ``previous_model`` say where their models come from, if their manifests
    can be read.
    """

    current: Optional[Release]
    previous: Optional[Release]
    health: Optional[Health] = None
    current_model: Optional[Provenance] = None
    previous_model: Optional[Provenance] = None


@dataclass(frozen=True)
class Unpacked:
    """Where a runtime stands on the device."""

    site: str


@dataclass(frozen=True)
class Failure:
    """Why a job failed. ``kind`` is stable; ``transient`` means that trying again may help."""

    kind: str
    message: str
    hint: str = ""
    transient: bool = False
