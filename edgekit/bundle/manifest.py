"""The manifest of a bundle: its fields, file names, and JSON form."""

from __future__ import annotations

import hashlib
import os
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
)

from edgekit.bundle.manifest_versions import (
    OLD_GOLDEN_SAMPLES,
    SCHEMA_VERSION,
    SchemaVersion,
)
from edgekit.config.profile import DeviceProfile, RuntimeName
from edgekit.config.project import GoldenKind, MetricOptionsTable, PreprocessSettings
from edgekit.model import Format
from edgekit.old_names import rename_stored_recipe
from edgekit_agent.codec import decode
from edgekit_agent.preprocess.settings import Audio, InputSettings, RowFields, Text
from edgekit_agent.releases.records import MOST_RELATIVE_ERROR, MOST_THREADS
from edgekit_agent.scoring import Answer, Postprocess

MANIFEST = "manifest.json"


GOLDEN_SAMPLES = "golden.npz"


SIGNATURE = "signature.json"


SUFFIX = ".edgekit"


PACKED = ".packed"


RELEASE_DIGITS = 16


RESULTS = "results.jsonl"


LOCK = "edgekit.lock"


REPORT = "report.html"


EXAMPLES = "examples.json"


TOKENIZER = "tokenizer.json"


MODELS = ("model.onnx", "model.tflite")


BUILT_FILES = (
    *MODELS, GOLDEN_SAMPLES, OLD_GOLDEN_SAMPLES, MANIFEST, SIGNATURE, LOCK, REPORT, EXAMPLES,
    TOKENIZER,
)  # fmt: skip


# In bytes; file systems have 255, some of them for the suffix.
_LONGEST_NAME = 200


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BundledFile(_Part):
    """A file of the bundle other than the manifest.

    ``transfer_bytes`` is the number of bytes sent to a device that lacks the file, and ``encoding``
    the encoding of these bytes. Bundles of older versions of edgekit state neither.
    """

    name: str
    digest: str
    bytes: int = Field(ge=0)
    transfer_bytes: int | None = Field(default=None, ge=0)
    encoding: Literal["raw", "packed"] | None = None


class RuntimeUse(_Part):
    """Runtime that measured the model on the host, and the number of threads it is to use."""

    name: RuntimeName
    version: str = Field(max_length=100)
    threads: int = Field(ge=1, le=MOST_THREADS)


class Tensor(_Part):
    """Name, type and shape of an input or output of the model."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class StorageVariant(_Part):
    """Candidate with the same low-bit weights in one storage variant, with its measured cost.

    Attributes:
        name: Name of the recipe.
        disk_bytes: File size on the device.
        transfer_bytes: Number of bytes sent.
        encoding: Encoding of the bytes sent.
        source: Where memory and latency were measured: ``host`` or ``device:NAME``; None if they
            were not measured.
        chosen: Whether this bundle holds the variant.
    """

    name: str
    disk_bytes: int
    transfer_bytes: int
    encoding: Literal["raw", "packed"]
    peak_rss_bytes: int | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    source: str | None
    chosen: bool


def _checked_name(name: str) -> str:
    """Check that the bundle's file can bear a name."""
    if not name or "/" in name or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
        raise ValueError("not a file name")
    return name


class Manifest(_Part):
    """Manifest of a bundle.

    ``golden_kind`` tells where the golden samples come from; earlier versions copied calibration
    samples and did not say so. ``variants`` lists the candidates with the same low-bit weights;
    without such candidates, only the packed one. ``recipe``, ``provenance``, ``measurements`` and
    ``verdict`` inform the reader; nothing on the device depends on them. The fields from
    ``class_names`` on are what an application needs to feed the model and to read its answers;
    older bundles lack them.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    name: Annotated[str, AfterValidator(_checked_name)]
    model: str
    format: Format
    source_digest: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metric: str
    output: str | None
    metric_options: MetricOptionsTable = MetricOptionsTable()
    guards: tuple[str, ...] = ()
    postprocess: dict[str, Any] | None = None
    preprocess: PreprocessSettings | None = None
    runtime: RuntimeUse
    profile: DeviceProfile
    files: tuple[BundledFile, ...]
    golden_samples: str = GOLDEN_SAMPLES
    golden_kind: GoldenKind = "calibration"
    max_relative_error: float = Field(default=0.1, ge=0, le=MOST_RELATIVE_ERROR)
    recipe: dict[str, Any]
    provenance: dict[str, Any]
    measurements: list[dict[str, Any]]
    verdict: dict[str, Any]
    passes: bool
    variants: tuple[StorageVariant, ...] = ()
    class_names: tuple[str, ...] = ()
    audio: Audio | None = None
    text: Text | None = None
    fields: tuple[RowFields, ...] = ()
    takes_images: bool | None = None
    input_settings: InputSettings | None = None
    answer: Answer | None = None

    @field_validator("recipe")
    @classmethod
    def _rename_steps(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        """Read a recipe of an earlier version under the present names of passes and settings."""
        return rename_stored_recipe(recipe)

    @field_validator("postprocess")
    @classmethod
    def _check_postprocess(cls, settings: dict[str, Any] | None) -> dict[str, Any] | None:
        if settings is not None:
            decode(Postprocess, settings)
        return settings

    def get_postprocess(self) -> Postprocess | None:
        """Return the post-processing of the outputs, if there is one."""
        return decode(Postprocess, self.postprocess) if self.postprocess is not None else None

    def file(self, name: str) -> BundledFile:
        """Return the entry of a file by its name."""
        return next(f for f in self.files if f.name == name)


def get_release_name(manifest: Manifest) -> str:
    """Return the release name used on devices: the first half of the manifest's digest, in hex."""
    return hashlib.sha256(encode_manifest(manifest)).hexdigest()[:RELEASE_DIGITS]


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json."""
    return manifest.model_dump_json(by_alias=True, indent=1).encode() + b"\n"
