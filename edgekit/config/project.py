"""Settings of a project in edgekit.toml: model, data, gate, build, golden samples and release."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.argument_checks import AnyPath, check_arguments
from edgekit.config.audio import AudioSettings
from edgekit.config.profile import AnyRuntime, validate
from edgekit.config.text import TextSettings
from edgekit.config.toml import read_toml
from edgekit.errors import UserError, reason
from edgekit_agent.samples import Preprocess
from edgekit_agent.scoring import MetricOptions, Postprocess
from edgekit_agent.trust.statements import MOST_VERSION

FILE_NAME = "edgekit.toml"

Positive = Annotated[float, Field(gt=0)]
_MOST_CHARSET_BYTES = 4 << 20
Side = Annotated[int, Field(ge=1, le=1 << 14)]
ClassName = Annotated[str, Field(min_length=1, max_length=60)]


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

    Images are resized (short side, bicubic) and center-cropped, in pixels, or scaled to the size of
    the model's input by ``resize_mode``; then ``(x * scale - mean) / std`` is applied per channel;
    then NHWC data become NCHW if ``layout`` is NCHW.
    """

    resize: Annotated[int, Field(ge=1)] | None = None
    """Length of the short side in pixels; images are resized to it first."""
    crop: Annotated[int, Field(ge=1)] | None = None
    """Side in pixels of the square that is cut from the center."""
    resize_mode: Literal["letterbox", "stretch"] | None = None
    """How images get the size of the model's input: ``letterbox`` scales them to fit and pads the
    rest, ``stretch`` changes their aspect ratio; both are bilinear. Needed for COCO annotations."""
    size: tuple[Side, Side] | Literal["own"] | None = None
    """Height and width for ``resize_mode``; needed only if the model leaves them free. ``own``:
    each image keeps its own size, or its own aspect ratio after ``resize``, and is run alone."""
    pad: Annotated[int, Field(ge=0, le=255)] = 114
    """Pixel value of the padding of ``letterbox``."""
    pad_position: Literal["center", "corner"] = "center"
    """Place of the image in ``letterbox``: in the center, or in the top left corner."""
    order: Literal["RGB", "BGR"] = "RGB"
    """Order of the channels that the model takes, also of the values of ``mean`` and ``std``; files
    and arrays of images (uint8) are RGB."""
    categories: Literal["id", "position"] = "id"
    """Class of a box with COCO annotations: the id of its category, or the position of this id
    among all, counted from 0."""
    scale: float = 1.0
    """Factor of every value."""
    mean: float | Annotated[tuple[float, ...], Field(min_length=1)] = 0.0
    """Number that is subtracted; a list has one for each channel."""
    std: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 1.0
    """Number that the difference is divided by; a list has one for each channel."""
    layout: Literal["NCHW", "NHWC"] = "NHWC"
    """Layout that the model takes; the data are NHWC."""

    @model_validator(mode="after")
    def _check(self) -> PreprocessSettings:
        if self.resize_mode and (self.resize or self.crop):
            raise ValueError("'resize_mode' excludes 'resize' and 'crop'")
        if self.keeps_sizes and (self.resize_mode or self.crop):
            raise ValueError("size = \"own\" excludes 'resize_mode' and 'crop'")
        if self.resize_mode is None and self.fixed_size:
            raise ValueError("'size' needs 'resize_mode'")
        return self

    @property
    def keeps_sizes(self) -> bool:
        """Return whether each image keeps a size of its own."""
        return self.size == "own"

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Return the height and width of all images, if they are set."""
        return None if self.size == "own" else self.size

    def to_preprocess(self) -> Preprocess:
        """Return the part that runs beside the model, on the host and on the device."""
        return Preprocess(
            self.scale, _to_tuple(self.mean), _to_tuple(self.std), self.layout == "NCHW"
        )


def _to_tuple(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


class MetricOptionsTable(_Table):
    """``[data.metric_options]``: options of the metrics, each for those that it concerns."""

    ignore: int | None = None
    """Label that is not scored, such as 255 in masks or -1 in frames."""
    threshold: float = 0.5
    """Score from which a class or a pixel counts as present."""
    count: Annotated[int, Field(ge=1)] = 1
    """The k of recall@k."""
    data_range: Positive = 1.0
    """Difference of the largest and the smallest possible value, for PSNR and SSIM."""
    classes: Annotated[int, Field(ge=0)] = 0
    """Number of classes; 0: as many as the output has."""
    logits: bool | None = None
    """Whether the output holds logits, not probabilities; found from its values unless given."""

    def to_options(self, output: str | None) -> MetricOptions:
        """Return the options for the agent, with the name of the scored output."""
        return MetricOptions(output=output, **self.model_dump(exclude_none=True))

    @classmethod
    def from_options(cls, options: MetricOptions) -> MetricOptionsTable:
        """Return the table of options that were used."""
        values = dataclasses.asdict(options)
        return cls(**{name: values[name] for name in cls.model_fields})


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """Settings of files that are neither arrays nor images."""

    audio: AudioSettings | None = None
    text: TextSettings | None = None


class DataTable(_Table):
    """``[data]``: splits and metric."""

    calibration: str | None = None
    """Calibration samples, a few hundred; labels are not used."""
    evaluation: str | None = None
    """Labeled samples that the model has not seen."""
    metric: str | None = None
    """Metric of accuracy: a name of ``edgekit metrics``, or module:function."""
    metric_on_device: bool = False
    """Run a metric of your own on the device, which gets its files, instead of on the outputs that
    the device returns."""
    output: str | None = None
    """Name of the output to score; the first one unless given."""
    class_names: tuple[ClassName, ...] = ()
    """Names of the classes 0, 1, ... for the report; folders of classes and COCO have their own."""
    preprocess: PreprocessSettings | None = None
    audio: AudioSettings | None = None
    text: TextSettings | None = None
    metric_options: MetricOptionsTable = MetricOptionsTable()

    @property
    def files(self) -> FileSettings:
        """Return the settings of files that are neither arrays nor images."""
        return FileSettings(audio=self.audio, text=self.text)


class PostprocessTable(_Table):
    """``[postprocess]``: post-processing of the outputs before the metric."""

    kind: Literal[
        "yolox",
        "yolov5",
        "yolov8",
        "distances",
        "boxes",
        "ctc",
        "argmax",
        "softmax",
        "sigmoid",
        "threshold",
    ]
    """Kind of post-processing: head of a detector, CTC decoding, or a function of each value."""
    outputs: tuple[str, ...] = ()
    """Names of the outputs that it reads; all unless given."""
    size: tuple[int, ...] = ()
    """Height and width of the model's input in pixels; those of the model unless given."""
    strides: tuple[Annotated[int, Field(ge=1)], ...] = (8, 16, 32)
    """Pixels of the input for each cell of a grid, one number for each level."""
    score_min: float = 0.01
    """Boxes with a lower score are dropped."""
    nms_iou: Annotated[float, Field(ge=0, le=1)] = 0.65
    """Overlap from which the box with the lower score is dropped."""
    most: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Largest number of boxes of a sample."""
    box_format: Literal["xyxy", "yxyx", "cxcywh", "xywh"] = "xyxy"
    """Order of the numbers of a box, for ``boxes``."""
    box_unit: Literal["pixels", "share"] = "pixels"
    """Unit of the numbers of a box: pixels, or shares of the input's width and height."""
    first_class: int = 0
    """Number of the first class in the targets."""
    background: int = -1
    """Class of the scores that stands for the background; -1: all classes are objects."""
    threshold: float = 0.5
    """Score from which a value is 1, for ``threshold``."""
    charset: str | None = None
    """File with one character per line, the classes of ``ctc`` without the blank."""
    space: bool = False
    """Whether the last class of ``ctc``, which the file lacks, is a space."""
    blank: Annotated[int, Field(ge=0)] = 0
    """Class of ``ctc`` that stands for the blank between characters."""

    def to_postprocess(self, folder: Path, size: tuple[int, ...]) -> Postprocess:
        """Return the settings for the agent.

        Args:
            folder: Base of the path of the character set.
            size: Height and width of the model's input, if they are not set.

        Raises:
            UserError: The character set is missing or cannot be read.
        """
        if self.kind == "ctc" and not self.charset:
            raise UserError(
                "edgekit.toml: postprocess.charset: missing, and kind ctc needs it",
                hint="name a text file in UTF-8 with one character per line",
            )
        values = self.model_dump(exclude={"charset", "space"})
        charset = _read_charset(folder / self.charset) if self.charset else ()
        if self.space:
            charset = (*charset, " ")
        return Postprocess(**{**values, "size": self.size or size, "charset": charset})


def _read_charset(path: Path) -> tuple[str, ...]:
    try:
        if path.stat().st_size > _MOST_CHARSET_BYTES:
            raise UserError(f"{path}: larger than {_MOST_CHARSET_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: the character set cannot be read: {reason(error)}",
            hint="give a text file in UTF-8 with one character per line",
        ) from error
    return tuple(text.removesuffix("\n").split("\n"))


class GateTable(_Table):
    """``[gate]``: limits of the losses of accuracy."""

    max_drop_points: Annotated[float, Field(ge=0)] | None = None
    """Largest accuracy drop in percentage points, instead of the limit of the device."""
    max_drop: Annotated[float, Field(ge=0)] | None = None
    """Largest loss in the unit of the metric: points, or percent of an error of the original."""
    guards: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Further metrics that a candidate must keep, with the largest loss of each."""
    require_proof: bool = False
    """Fail unless the samples prove that the drop is within the limit."""


Effort = Literal["quick", "standard", "thorough"]


class BuildTable(_Table):
    """``[build]``: defaults of ``edgekit build``."""

    device: str | None = None
    """Name of a device profile, or the path of a .toml file."""
    runtime: AnyRuntime = "auto"
    """Runtime of the candidates; ``auto`` tries each one that the device has."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Seed of every random choice."""
    effort: Effort | None = None
    """How long candidates that lose too much accuracy may learn from the original, if no other
    meets the budgets: ``quick`` 0 minutes, ``standard`` (the default) 10 together, ``thorough`` 60.
    """
    minutes: Annotated[float, Field(ge=0, le=1440)] | None = None
    """Minutes that candidates may learn together, instead of those of ``effort``."""
    examples: bool = False
    """Whether the report draws samples that the candidate changes, with their images or texts, as
    with ``--with-samples``; else it lists their numbers alone."""


GoldenKind = Literal["synthetic", "calibration"]


class GoldenTable(_Table):
    """``[golden]``: golden samples, which are part of every bundle and package."""

    samples: GoldenKind = "synthetic"
    """Where their inputs come from: ``synthetic`` draws them from statistics over the samples;
    ``calibration`` keeps coarse copies of two samples, which leave this machine."""


class ReleaseTable(_Table):
    """``[release]``: signing of bundles."""

    key: str | None = None
    """Name of the key to sign with; ``default`` is used if it exists."""
    version: Annotated[int, Field(ge=1, le=MOST_VERSION)] | None = None
    """Version of the release, which must not decrease; else the time of signing in seconds."""
    valid_days: Annotated[int, Field(ge=1, le=36500)] = 365
    """Days for which devices accept the release."""


class PipelineTable(_Table):
    """``[pipeline]``: several models that a function of yours combines to one answer.

    Each model is compressed in turn, in the order of the file, and the metric of ``[data]`` judges
    the answers of all. Its table ``[pipeline.models.NAME]`` takes the keys of ``[model]``.
    """

    run: str
    """The function, as module:function: (models, sample) -> outputs by name."""
    inputs: tuple[str, ...] = ()
    """Arrays of the data that the function gets, as they are; the inputs of the first model unless
    given."""
    on_device: bool = False
    """Run the function on the device too, which gets its files; else accuracy is measured on this
    machine alone."""
    models: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")], ModelTable],
        Field(min_length=1),
    ]


class Project(_Table):
    """Content of edgekit.toml."""

    model: ModelTable = ModelTable()
    pipeline: PipelineTable | None = None
    data: DataTable = DataTable()
    gate: GateTable = GateTable()
    postprocess: PostprocessTable | None = None
    build: BuildTable = BuildTable()
    golden: GoldenTable = GoldenTable()
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
