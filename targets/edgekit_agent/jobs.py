"""Jobs that the host gives to the agent; ``codec`` is their JSON form.

Units are in the names; ``digest`` is always the sha256 of a file's bytes in hex.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from edgekit_agent.samples import Samples


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
