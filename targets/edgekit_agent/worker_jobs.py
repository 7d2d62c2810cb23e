"""Jobs of a worker process, which runs one model or unpacks one file; see ``jobs`` for the others.

Units are in the names; ``digest`` is always the sha256 of a file's bytes in hex.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from edgekit_agent.protocol import mark_added, mark_old_name
from edgekit_agent.samples import Samples
from edgekit_agent.scoring import CodeFile, MetricJob, Postprocess


@dataclass(frozen=True)
class ModelRef:
    """A model file and how to run it. ``site`` is a folder of unpacked wheels to import from."""

    path: str
    runtime: str  # "onnxruntime" | "litert"
    threads: int = 1
    site: Optional[str] = None


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
    encoding: str  # "raw" | "zlib" | "packed" (see ``packing.unpack``)


@dataclass(frozen=True)
class ExpandJob:
    """Unpack the completely received blob ``part`` into the object ``path``."""

    part: str
    path: str
    blob: Blob
    site: Optional[str] = None
