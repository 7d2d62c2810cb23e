"""Sizes, channel orders and layouts of images that are worth a try for a model and its data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.config.project import PostprocessTable, PreprocessSettings
from edgekit.data.images import read_image_sizes
from edgekit.model import Model, TensorSpec
from edgekit.pipeline.pixel_scaling import Scaling
from edgekit.pipeline.proposals.task_facts import TargetFacts
from edgekit.pipeline.proposals.task_proposal import find_image_size, has_channels_first

_LOOKED_AT = 50
_CHANNELS = (1, 3)
# Sizes for models that leave height and width free: to look at the outputs, and for detectors.
_SMALL, _USUAL = (64, 64), (640, 640)
# Height of text lines if the model leaves it free; widths are multiples of the second number.
_LINE_HEIGHT, _LINE_STEP, _LONGEST_LINE = 48, 32, 40
_GRAY_PAD = 114


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """A folder of images for a model with one image input.

    Attributes:
        source: Its name in edgekit.toml.
        sizes: Widths and heights of some images.
        wanted: Height and width of the model's input; ``None`` = free.
        layout: Layout of the model's input.
        has_colors: Whether the model takes images of three channels.
    """

    source: str
    sizes: frozenset[tuple[int, int]]
    wanted: tuple[int, int] | None
    layout: PreprocessSettings
    has_colors: bool

    @property
    def fits(self) -> bool:
        """Return whether the images already have the size of the input."""
        if self.wanted is None:
            return len(self.sizes) == 1
        return self.sizes == {(self.wanted[1], self.wanted[0])}

    def get_probe(self, *, boxes: bool = False) -> PreprocessSettings:
        """Return settings with which images of any size can be read."""
        if self.fits and not boxes:
            return self.layout
        return self._resize("stretch", _USUAL if boxes else _SMALL)

    def _resize(self, mode: str, size: tuple[int, int] | None = None) -> PreprocessSettings:
        free = size if self.wanted is None else None
        return self.layout.model_copy(update={"resize_mode": mode, "size": free})

    def choose_size(
        self, target: TargetFacts | None, heads: Sequence[PostprocessTable]
    ) -> PreprocessSettings:
        """Return the settings of the size that is usual for the task."""
        if target is not None and target.has_boxes:
            return self._choose_box_settings(heads)
        if any(head.kind == "ctc" for head in heads):
            return self._choose_line_settings(self.wanted[0] if self.wanted else _LINE_HEIGHT)
        if self.fits:
            return self.layout
        if target is not None and target.sizes:
            return self._resize("stretch", _SMALL)
        if self.wanted is None or self.wanted[0] == self.wanted[1]:
            side = self.wanted[0] if self.wanted else min(min(size) for size in self.sizes)
            return self.layout.model_copy(update={"resize": side, "crop": side})
        return self._resize("stretch")

    def _choose_box_settings(self, heads: Sequence[PostprocessTable]) -> PreprocessSettings:
        kinds = {head.kind for head in heads}
        if kinds == {"boxes"}:
            return self._resize("stretch", _USUAL)
        settings = self._resize("letterbox", _USUAL)
        return place_padding(settings, heads[0].kind if heads else "")

    def _choose_line_settings(self, height: int) -> PreprocessSettings:
        """Return the settings of text lines of a height: in the left of the input, unstretched."""
        longest = max(math.ceil(height * width / tall) for width, tall in self.sizes)
        steps = min(math.ceil(longest / _LINE_STEP), _LONGEST_LINE)
        settings = self._resize("letterbox", (height, steps * _LINE_STEP))
        return settings.model_copy(update={"pad_position": "corner"})


def look_at_folder(source: str, path: Path, model: Model) -> ImageFolder | None:
    """Look at a folder of images; ``None`` if the model has no single image input."""
    images = [spec for spec in model.signature.inputs if len(spec.shape) == 4]
    if len(images) != 1:
        return None
    return ImageFolder(
        source=source,
        sizes=frozenset(read_image_sizes(source, path, _LOOKED_AT)),
        wanted=find_image_size(model.signature),
        layout=PreprocessSettings(layout="NCHW" if has_channels_first(images[0]) else "NHWC"),
        has_colors=not _has_one_channel(images[0]),
    )


def _has_one_channel(spec: TensorSpec) -> bool:
    return 1 in (spec.shape[1], spec.shape[3])


def place_padding(settings: PreprocessSettings, kind: str) -> PreprocessSettings:
    """Return letterbox settings with the place of the padding that a kind of detector expects."""
    if settings.resize_mode != "letterbox":
        return settings
    corner = "corner" if kind == "yolox" else "center"
    return settings.model_copy(update={"pad_position": corner, "pad": _GRAY_PAD})


def choose_line_padding(settings: PreprocessSettings, scaling: Scaling) -> PreprocessSettings:
    """Return the settings with the padding of text lines that becomes about 0."""
    mean = sum(scaling.mean) / len(scaling.mean)
    pad = min(max(round(mean / scaling.scale), 0), 255)
    return settings.model_copy(update={"pad": pad})
