"""Jobs that the host sends to the agent; ``codec`` converts them to JSON.

Units are in the names; ``digest`` is always the sha256 of a file's bytes in hex.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from edgekit_agent.protocol import mark_added, mark_old_name
from edgekit_agent.samples import Samples
from edgekit_agent.scoring import CodeFile, MetricJob, Postprocess
from edgekit_agent.trust.statements import Signature, TrustedKey


@dataclass(frozen=True)
class ModelRef:
    """A model file and how to run it. ``site`` is a folder of unpacked wheels to import from."""

    path: str
    runtime: str  # "onnxruntime" | "litert"
    threads: int = 1
    site: Optional[str] = None


@dataclass(frozen=True)
class ProbeJob:
    """Describe this device. ``sites`` are folders of unpacked wheels to search for runtimes."""

    home: str
    sites: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchJob:
    """Time a model at its own batch size, one sample at a time.

    Warm-up goes on until two windows in a row agree or ``warmup_s`` is over; then at least
    ``min_runs`` inferences and at least ``seconds`` are timed, at most ``max_runs``. Without
    ``samples`` the inputs are random, with the sizes ``dims`` for the free dimensions.
    """

    model: ModelRef
    samples: Optional[Samples] = None
    dims: Dict[str, int] = field(default_factory=dict)
    warmup_s: float = 3.0
    seconds: float = 2.0
    min_runs: int = 20
    max_runs: int = 5000


@dataclass(frozen=True)
class NamedModel:
    """A model and the name by which code of the user finds it."""

    name: str
    model: ModelRef


@dataclass(frozen=True)
class NamedType:
    """Name and numpy type of an array."""

    name: str
    dtype: str


@dataclass(frozen=True)
class Combination:
    """Models that a function of the user combines to one answer for each sample.

    Attributes:
        run: ``module:function``, which gets the models by name and the arrays of a sample.
        folder: folder in which modules are searched first; empty if ``files`` are the modules.
        models: the models.
        inputs: types of the arrays of a sample.
        files: modules of the user, for a device that does not have them.
    """

    run: str
    folder: str
    models: Tuple[NamedModel, ...]
    inputs: Tuple[NamedType, ...]
    files: Tuple[CodeFile, ...] = ()


@dataclass(frozen=True)
class ScoreJob:
    """Run every sample from number ``start`` on through a model and compute its statistics.

    With a ``combination`` its outputs are scored; ``model`` is the one of its models that changes.

    Progress lines carry a ``TallyPart`` now and then; the result holds what no part had.
    ``outputs_path``, where given, receives the scored output of every sample as one ``.npy`` of
    float32, first axis = samples. A host of protocol 1.0 sends no ``metrics``: it gets the correct
    predictions by ``metric`` (top1, top5 or binary), of all samples at once.
    """

    model: ModelRef
    samples: Samples
    metric: str
    output: Optional[str] = None
    outputs_path: Optional[str] = None
    start: int = 0
    metrics: Tuple[MetricJob, ...] = field(default=(), metadata=mark_added())
    postprocess: Optional[Postprocess] = field(default=None, metadata=mark_added())
    combination: Optional[Combination] = field(default=None, metadata=mark_added())


@dataclass(frozen=True)
class HealthJob:
    """Run the golden samples in a file and compare the outputs.

    The file is one ``.npz`` with ``input:NAME`` and ``output:NAME`` arrays. The model is healthy if
    every output has the expected shape, is non-finite at the same positions, and has a relative RMS
    error of at most ``max_relative_error`` elsewhere.
    """

    model: ModelRef
    golden_samples: str = field(metadata=mark_old_name("canaries"))
    max_relative_error: float = 0.1


@dataclass(frozen=True)
class Blob:
    """A file to transfer: digest and size of the file, and of the bytes sent for it."""

    digest: str
    size: int
    wire_digest: str
    wire_size: int
    encoding: str  # "raw" | "zlib" | "packed" (see ``unpacking``)


@dataclass(frozen=True)
class PlanJob:
    """Report which of these blobs the device lacks, and how much of each it has received."""

    home: str
    blobs: Tuple[Blob, ...]


@dataclass(frozen=True)
class ReceiveJob:
    """Receive blobs from the bytes after this line, each from its entry of ``offsets`` on.

    Packed blobs need numpy: ``site`` is its folder, if it is not installed in this Python.
    """

    home: str
    blobs: Tuple[Blob, ...]
    offsets: Tuple[int, ...]
    site: Optional[str] = None


@dataclass(frozen=True)
class ExpandJob:
    """Unpack the completely received blob ``part`` into the object ``path``."""

    part: str
    path: str
    blob: Blob
    site: Optional[str] = None


@dataclass(frozen=True)
class ForgetJob:
    """Remove these objects and their partial downloads; objects of a release are kept."""

    home: str
    digests: Tuple[str, ...]


@dataclass(frozen=True)
class NamedBlob:
    """A received blob and its file name in a release."""

    name: str
    digest: str


@dataclass(frozen=True)
class RuntimeJob:
    """Unpack received wheels into ``runtimes/NAME``, completely or not at all.

    An existing folder is replaced: the host only sends runtimes that do not work.
    """

    home: str
    name: str
    wheels: Tuple[NamedBlob, ...]


@dataclass(frozen=True)
class InstallJob:
    """Assemble a release from received blobs, check its health, and switch ``current`` to it.

    ``golden_samples`` is the name of one of the ``files``. ``permit`` is a signed permit to install
    a lower version. Unless the release is confirmed within ``watch_s`` seconds, the device goes
    back; 0 = it needs no confirmation.
    """

    home: str
    release: str
    files: Tuple[NamedBlob, ...]
    model: str
    runtime: str
    threads: int
    site: Optional[str]
    golden_samples: str = field(metadata=mark_old_name("canaries"))
    max_relative_error: float = 0.1
    runtime_version: str = ""
    signature: Optional[Signature] = None
    permit: Optional[Signature] = None
    watch_s: float = 0.0


@dataclass(frozen=True)
class AdmitJob:
    """Check that the device would take a release, before anything is sent for it.

    ``permit`` is the signed permit to install a lower version.
    """

    home: str
    signature: Optional[Signature]
    permit: Optional[Signature] = None


@dataclass(frozen=True)
class TrustJob:
    """Trust and revoke keys, and bind the device to a profile; with neither, report the keys.

    ``revoke`` are public keys in hex. ``profile`` is the only device profile whose releases are
    taken; an empty one allows every profile. ``replace`` allows to start without keys if the file
    of keys and its copy are damaged.
    """

    home: str
    add: Tuple[TrustedKey, ...] = ()
    revoke: Tuple[str, ...] = ()
    profile: Optional[str] = None
    replace: bool = False


@dataclass(frozen=True)
class UntrustJob:
    """Remove all trusted keys and take unsigned releases again; ``waiver`` permits that."""

    home: str
    waiver: Signature


@dataclass(frozen=True)
class ConfirmJob:
    """Confirm that a release works, so that it is served on."""

    home: str
    release: str


@dataclass(frozen=True)
class RollbackJob:
    """Check the health of the previous release and switch ``current`` back to it."""

    home: str


@dataclass(frozen=True)
class StatusJob:
    """Report the current and the previous release.

    If ``check`` is the name of the current release, its digests and its health are checked too.
    ``log`` is how many lines of the audit log to report.
    Another agent that is changing the home is waited for, up to ``wait_s``.
    """

    home: str
    check: str = ""
    log: int = 0
    wait_s: float = 0.0
