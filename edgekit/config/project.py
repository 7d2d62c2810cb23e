"""Settings of a project in edgekit.toml: model, data, gate, build and release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.argument_checks import AnyPath, check_arguments
from edgekit.config.profile import AnyRuntime, validate
from edgekit.config.toml import read_toml
from edgekit.errors import UserError
from edgekit_agent.samples import Preprocess
from edgekit_agent.trust.statements import MOST_VERSION

Metric = Literal["top1", "top5", "binary"]
FILE_NAME = "edgekit.toml"

Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Number = bool | int | float
ScalarOrList = Number | str | list[Any]


class InputTable(_Table):
    """``[model.inputs.NAME]``: settings of an input that does not take one row per sample."""

    batch_axis: Annotated[int, Field(ge=0, le=63)] | Literal["none"] | None = None
    """Sample axis of the input; "none": each sample is a whole input."""
    constant: ScalarOrList | None = None
    """Value of every run: a number, a list, or the path of a .npy file."""
    output: Annotated[str | None, Field(alias="from")] = None
    """Name of the output that is fed back to the input: a state."""
    initial: Number | str = 0
    """Value of the state at the start of each sequence, or the path of a .npy file."""

    @model_validator(mode="after")
    def _check(self) -> InputTable:
        if self.constant is not None and (self.output is not None or self.batch_axis is not None):
            raise ValueError("'constant' excludes 'from' and 'batch_axis'")
        if self.output is None and "initial" in self.model_fields_set:
            raise ValueError("'initial' needs 'from'")
        return self


class ModelTable(_Table):
    """``[model]``: path and input settings of the model."""

    path: str | None = None
    """The model: a file, a SavedModel folder, or module:function."""
    trust_pickle: bool = False
    """Allow the model file to run code that it contains, as pickles do."""
    dims: dict[str, Annotated[int, Field(ge=1, le=(1 << 31) - 1)]] = {}
    """Sizes of free dimensions by name; ``--dims NAME=SIZE`` overrides them."""
    inputs: dict[str, InputTable] = {}


class PreprocessSettings(_Table):
    """``[data.preprocess]``: preprocessing of float inputs.

    Images are resized (short side, bicubic) and center-cropped, in pixels; then ``(x * scale -
    mean) / std`` is applied per channel; then NHWC data become NCHW if ``layout`` is NCHW.
    """

    resize: Annotated[int, Field(ge=1)] | None = None
    """Length of the short side in pixels; images are resized to it first."""
    crop: Annotated[int, Field(ge=1)] | None = None
    """Side in pixels of the square that is cut from the center."""
    scale: float = 1.0
    """Factor of every value."""
    mean: float | Annotated[tuple[float, ...], Field(min_length=1)] = 0.0
    """Number that is subtracted; a list has one for each channel."""
    std: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 1.0
    """Number that the difference is divided by; a list has one for each channel."""
    layout: Literal["NCHW", "NHWC"] = "NHWC"
    """Layout that the model takes; the data are NHWC."""

    def to_preprocess(self) -> Preprocess:
        """Return the part that runs beside the model, on the host and on the device."""
        return Preprocess(
            self.scale, _to_tuple(self.mean), _to_tuple(self.std), self.layout == "NCHW"
        )


def _to_tuple(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


class DataTable(_Table):
    """``[data]``: splits and metric."""

    calibration: str | None = None
    """Calibration samples, a few hundred; labels are not used."""
    evaluation: str | None = None
    """Labeled samples that the model has not seen."""
    metric: Metric | None = None
    """Metric of accuracy."""
    output: str | None = None
    """Name of the output to score; the first one unless given."""
    preprocess: PreprocessSettings | None = None


class GateTable(_Table):
    """``[gate]``: limit of the accuracy drop."""

    max_drop_points: Annotated[float, Field(ge=0)] | None = None
    """Largest accuracy drop in percentage points, instead of the limit of the device."""
    require_proof: bool = False
    """Fail unless the samples prove that the drop is within the limit."""


class BuildTable(_Table):
    """``[build]``: defaults of ``edgekit build``."""

    device: str | None = None
    """Name of a device profile, or the path of a .toml file."""
    runtime: AnyRuntime = "auto"
    """Runtime of the candidates; ``auto`` tries each one that the device has."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Seed of every random choice."""


class ReleaseTable(_Table):
    """``[release]``: signing of bundles."""

    key: str | None = None
    """Name of the key to sign with; ``default`` is used if it exists."""
    version: Annotated[int, Field(ge=1, le=MOST_VERSION)] | None = None
    """Version of the release, which must not decrease; else the time of signing in seconds."""
    valid_days: Annotated[int, Field(ge=1, le=36500)] = 365
    """Days for which devices accept the release."""


class Project(_Table):
    """Content of edgekit.toml."""

    model: ModelTable = ModelTable()
    data: DataTable = DataTable()
    gate: GateTable = GateTable()
    build: BuildTable = BuildTable()
    release: ReleaseTable = ReleaseTable()

    @classmethod
    @check_arguments
    def load(cls, folder: AnyPath = ".") -> Project:
        """Load edgekit.toml from a folder; return the defaults if there is none.

        Raises:
            UserError: The folder is missing, or the file is wrong; lists every error at once.
        """
        return load_project(Path(folder))


def load_project(folder: Path) -> Project:
    """Load edgekit.toml from a folder; return the defaults if there is none.

    Raises:
        UserError: The folder is missing, or the file is wrong; lists every error at once.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    path = folder / FILE_NAME
    if not path.exists():
        return Project()
    return validate(Project, read_toml(path), where=str(path))
