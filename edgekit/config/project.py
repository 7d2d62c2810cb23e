"""Settings of a project in edgekit.toml: model, data, gate, build and release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.config.profile import AnyRuntime, validate
from edgekit.config.toml import read_toml
from edgekit.errors import UserError
from edgekit_agent.samples import Preprocess
from edgekit_agent.trust.statements import MOST_VERSION

FILE_NAME = "edgekit.toml"

Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Number = bool | int | float
ScalarOrList = Number | str | list[Any]


class InputTable(_Table):
    """``[model.inputs.NAME]``: settings of an input that does not take one row per sample.

    ``batch_axis`` is the sample axis ("none": each sample is a whole input); ``constant`` the value
    of every run, as a number, a list or a .npy file; ``from`` the output that is fed back to the
    input, and ``initial`` its value at the beginning of a sequence.
    """

    batch_axis: Annotated[int, Field(ge=0, le=63)] | Literal["none"] | None = None
    constant: ScalarOrList | None = None
    output: Annotated[str | None, Field(alias="from")] = None
    initial: Number | str = 0

    @model_validator(mode="after")
    def _check(self) -> InputTable:
        if self.constant is not None and (self.output is not None or self.batch_axis is not None):
            raise ValueError("a constant has neither 'from' nor 'batch_axis'")
        if self.output is None and "initial" in self.model_fields_set:
            raise ValueError("'initial' goes with 'from'")
        return self


class ModelTable(_Table):
    """``[model]``: path and input settings of the model.

    ``dims`` gives sizes to free dimensions that the data leaves open. ``trust_pickle`` allows a
    model file to run the code that it carries. ``inputs`` holds the settings of inputs that are not
    rows of samples.
    """

    path: str | None = None
    trust_pickle: bool = False
    dims: dict[str, Annotated[int, Field(ge=1, le=(1 << 31) - 1)]] = {}
    inputs: dict[str, InputTable] = {}


class PreprocessSettings(_Table):
    """``[data.preprocess]``: preprocessing of float inputs.

    Images are resized (short side, bicubic) and center-cropped, in pixels; then ``(x * scale -
    mean) / std`` is applied per channel; then NHWC data become NCHW if ``layout`` is NCHW.
    """

    resize: Annotated[int, Field(ge=1)] | None = None
    crop: Annotated[int, Field(ge=1)] | None = None
    scale: float = 1.0
    mean: float | Annotated[tuple[float, ...], Field(min_length=1)] = 0.0
    std: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 1.0
    layout: Literal["NCHW", "NHWC"] = "NHWC"

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
    evaluation: str | None = None
    metric: Literal["top1", "top5", "binary"] | None = None
    output: str | None = None
    preprocess: PreprocessSettings | None = None


class GateTable(_Table):
    """``[gate]``: limit of the accuracy drop. ``max_drop_points`` overrides the device's limit."""

    max_drop_points: Annotated[float, Field(ge=0)] | None = None
    require_proof: bool = False


class BuildTable(_Table):
    """``[build]``: defaults of ``edgekit build``."""

    device: str | None = None
    runtime: AnyRuntime = "auto"
    seed: int = 0


class ReleaseTable(_Table):
    """``[release]``: signing of bundles.

    ``key`` is the name of the signing key. The ``version`` of releases must not decrease; without
    one it is the time of signing in seconds. Devices accept a release for ``valid_days``.
    """

    key: str | None = None
    version: Annotated[int, Field(ge=1, le=MOST_VERSION)] | None = None
    valid_days: Annotated[int, Field(ge=1, le=36500)] = 365


class Project(_Table):
    """Content of edgekit.toml."""

    model: ModelTable = ModelTable()
    data: DataTable = DataTable()
    gate: GateTable = GateTable()
    build: BuildTable = BuildTable()
    release: ReleaseTable = ReleaseTable()


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
