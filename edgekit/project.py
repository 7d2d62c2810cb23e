"""edgekit.toml: which model, which data, which device."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.errors import UserError
from edgekit.profile import AnyRuntime, validated
from edgekit_agent.records import Preprocess

FILE_NAME = "edgekit.toml"

Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelTable(_Table):
    """``[model]``. ``dims`` gives free dimensions a size where no data does.

    ``trust_pickle`` allows a model file to run the code that it carries.
    """

    path: str | None = None
    trust_pickle: bool = False
    dims: dict[str, Annotated[int, Field(ge=1)]] = {}


class PreprocessSettings(_Table):
    """``[data.preprocess]``: what is done to float inputs before the model sees them.

    Images are resized (short side, bicubic) and centre-cropped to pixels; then
    ``(x * scale - mean) / std`` over the channels; then NHWC data become NCHW if ``layout`` says
    that the model wants it.
    """

    resize: Annotated[int, Field(ge=1)] | None = None
    crop: Annotated[int, Field(ge=1)] | None = None
    scale: float = 1.0
    mean: float | Annotated[tuple[float, ...], Field(min_length=1)] = 0.0
    std: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 1.0
    layout: Literal["NCHW", "NHWC"] = "NHWC"

    def for_agent(self) -> Preprocess:
        """The part that runs beside the model, on the host as on the device."""
        return Preprocess(self.scale, _tuple(self.mean), _tuple(self.std), self.layout == "NCHW")


def _tuple(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


class DataTable(_Table):
    """``[data]``: the splits and how a sample is scored."""

    calibration: str | None = None
    evaluation: str | None = None
    metric: Literal["top1", "top5", "binary"] | None = None
    output: str | None = None
    preprocess: PreprocessSettings | None = None


class GateTable(_Table):
    """``[gate]``: what counts as still good. ``max_drop_points`` replaces the device's limit."""

    max_drop_points: Annotated[float, Field(ge=0)] | None = None
    require_proof: bool = False


class BuildTable(_Table):
    """``[build]``: what ``edgekit build`` takes where the command line says nothing."""

    device: str | None = None
    runtime: AnyRuntime = "auto"
    seed: int = 0


class Project(_Table):
    """A whole edgekit.toml."""

    model: ModelTable = ModelTable()
    data: DataTable = DataTable()
    gate: GateTable = GateTable()
    build: BuildTable = BuildTable()


def load_project(folder: Path) -> Project:
    """The project in a folder; all defaults where it has no edgekit.toml.

    Raises:
        UserError: the folder is missing, or the file is wrong; lists every error at once.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    path = folder / FILE_NAME
    if not path.exists():
        return Project()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from error
    return validated(Project, raw, where=str(path))
