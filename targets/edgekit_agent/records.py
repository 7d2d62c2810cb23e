"""What the two halves say to each other, as frozen dataclasses; ``codec`` is their JSON form.

Units are in the names; ``digest`` is always the sha256 of a file's bytes in hex.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from edgekit_agent.provenance import Provenance

# ---------------------------------------------------------------- data a model is fed with


@dataclass(frozen=True)
class Column:
    """Rows of one array on disk: ``shape[0]`` samples, C order, from ``offset`` of ``path``.

    ``axis`` is the axis of the model input along which samples are stacked; -1 where it has none,
    so that each row is a whole input and is fed by itself.
    """

    name: str
    path: str
    offset: int
    dtype: str
    shape: Tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class Preprocess:
    """``(x * scale - mean) / std`` over the last axis, then NHWC to NCHW if ``channels_first``."""

    scale: float = 1.0
    mean: Tuple[float, ...] = (0.0,)
    std: Tuple[float, ...] = (1.0,)
    channels_first: bool = False


@dataclass(frozen=True)
class State:
    """An input that takes an output of the run before.

    ``initial`` holds the one row that each sequence begins with; its name is the input's.
    """

    output: str
    initial: Column


@dataclass(frozen=True)
class Samples:
    """A column, a constant or a state per model input (named as it), and labels if any.

    ``constants`` are whole inputs, ``shape`` and all, the same in every run. ``sequence`` numbers
    the sequences whose steps the samples are, in order: states begin anew where it changes;
    without it, all samples are one sequence. ``first`` is the number of the first sample in the
    user's data, for messages.
    """

    columns: Tuple[Column, ...]
    label: Optional[Column] = None
    preprocess: Optional[Preprocess] = None
    constants: Tuple[Column, ...] = ()
    states: Tuple[State, ...] = ()
    sequence: Optional[Column] = None
    first: int = 0

    def files(self) -> Tuple[Column, ...]:
        """Everything that lies on disk."""
        single = [c for c in (self.label, self.sequence) if c is not None]
        return (*self.columns, *self.constants, *(s.initial for s in self.states), *single)


# ---------------------------------------------------------------- jobs


@dataclass(frozen=True)
class ModelRef:
    """A model file and how to run it. ``site`` is a folder of unpacked wheels to import from."""

    path: str
    runtime: str  # "onnxruntime" | "litert"
    threads: int = 1
    site: Optional[str] = None


@dataclass(frozen=True)
class ProbeJob:
    """Say what this device is. ``sites`` are folders of unpacked wheels to look into as well."""

    home: str
    sites: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchJob:
    """Time a model at its own batch size, one sample at a time.

    Warm-up goes on until two windows in a row agree or ``warmup_s`` is over; then at least
    ``min_runs`` inferences and at least ``seconds`` are timed, at most ``max_runs``. Without
    ``samples`` the inputs are made from the signature with ``dims`` for the free dimensions.
    """

    model: ModelRef
    samples: Optional[Samples] = None
    dims: Dict[str, int] = field(default_factory=dict)
    warmup_s: float = 3.0
    seconds: float = 2.0
    min_runs: int = 20
    max_runs: int = 5000


@dataclass(frozen=True)
class ScoreJob:
    """Run every sample from number ``start`` on through a model and count how often it is right.

    On the way, progress lines carry a ``TallyPart`` now and then. ``outputs_path``, where given,
    receives the scored output of every sample as one ``.npy`` of float32, first axis = samples.
    """

    model: ModelRef
    samples: Samples
    metric: str  # "top1" | "top5" | "binary"
    output: Optional[str] = None
    outputs_path: Optional[str] = None
    start: int = 0


@dataclass(frozen=True)
class HealthJob:
    """Run the canaries (``input:NAME`` and ``output:NAME`` arrays of one ``.npz``) and compare.

    Healthy: every output has the shape it had, is not finite exactly where it was not, and differs
    from it elsewhere by a relative RMS error of at most ``max_relative_error``.
    """

    model: ModelRef
    canaries: str
    max_relative_error: float = 0.1


@dataclass(frozen=True)
class Blob:
    """A file on its way: its own digest and size, and those of the bytes sent for it."""

    digest: str
    size: int
    wire_digest: str
    wire_size: int
    encoding: str  # "raw" | "zlib" | "packed" (see ``unpacking``)


@dataclass(frozen=True)
class PlanJob:
    """Which of these blobs does the device lack, and how much of each has come already?"""

    home: str
    blobs: Tuple[Blob, ...]


@dataclass(frozen=True)
class ReceiveJob:
    """Take blobs from the bytes that follow this line, each from its ``offsets`` entry on.

    ``site`` is where numpy is, if not in this Python's own folders; packed blobs need it.
    """

    home: str
    blobs: Tuple[Blob, ...]
    offsets: Tuple[int, ...]
    site: Optional[str] = None


@dataclass(frozen=True)
class ExpandJob:
    """Make the object ``path`` of a packed blob whose bytes are all in ``part``."""

    part: str
    path: str
    blob: Blob
    site: Optional[str] = None


@dataclass(frozen=True)
class ForgetJob:
    """Remove these objects, and what came of them so far; those of a release stay."""

    home: str
    digests: Tuple[str, ...]


@dataclass(frozen=True)
class NamedBlob:
    """A received blob and the file name it stands for."""

    name: str
    digest: str


@dataclass(frozen=True)
class RuntimeJob:
    """Unpack wheels (received before) into ``runtimes/NAME``, whole or not at all.

    What stands there already is replaced: nobody asks for a runtime that works.
    """

    home: str
    name: str
    wheels: Tuple[NamedBlob, ...]


@dataclass(frozen=True)
class InstallJob:
    """Make a release of received blobs, check its health, and switch ``current`` to it.

    ``canaries`` is the name of one of ``files``.
    """

    home: str
    release: str
    files: Tuple[NamedBlob, ...]
    model: str
    runtime: str
    threads: int
    site: Optional[str]
    canaries: str
    max_relative_error: float = 0.1
    runtime_version: str = ""


@dataclass(frozen=True)
class RollbackJob:
    """Switch ``current`` back to the release before, after checking its health."""

    home: str


@dataclass(frozen=True)
class StatusJob:
    """Say which releases are here and which one is served.

    If ``check`` names the one that is served, its digests and its health are checked too.
    """

    home: str
    check: str = ""


# ---------------------------------------------------------------- results


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
