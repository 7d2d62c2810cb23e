"""Drawings of inputs and answers: pictures, boxes, curves and texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.answers import Answer, Boxes, Classes, Text, Values
from edgekit.pipeline.examples.pictures import choose_color, draw_image, draw_mask, find_image
from edgekit.pipeline.examples.records import Box, Color, Drawing
from edgekit.printable import escape_text

# Most classes, values, boxes and characters of one answer.
_MOST_ITEMS, _MOST_VALUES, _MOST_BOXES, _MOST_TEXT = 8, 16, 30, 400
_MOST_COLORS = 12
_POINTS = 120
# Boxes with a lower score are drawn only if there is no better one.
_SURE = 0.25
_LETTERBOX_NUMBERS = 5


@dataclass(frozen=True, kw_only=True)
class Pen:
    """Look of drawings: names, sizes and colors.

    Attributes:
        names: Names of classes by their numbers.
        side: Most pixels of a side of pictures.
        is_reversed: Whether color images have their channels as BGR.
        texts: Texts of samples whose inputs are the tokens of texts, by the samples' numbers.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    side: int = 160
    is_reversed: bool = False
    texts: Mapping[int, str] = field(default_factory=dict)

    def name_class(self, number: int) -> str:
        """Return the name of a class, else its number."""
        return self.names.get(number, str(number))

    def draw_input(self, number: int, arrays: Mapping[str, NDArray[Any]]) -> Drawing:
        """Draw the text of a sample, else the input that looks like an image, else the first one.

        Args:
            number: Number of the sample.
            arrays: Its inputs by name.
        """
        if number in self.texts:
            return Drawing(text=_cut(self.texts[number]))
        for array in arrays.values():
            image = find_image(array)
            if image is not None:
                is_bytes = array.dtype == np.uint8 and image.shape[-1] == 3
                shown = image[:, :, ::-1] if self.is_reversed and is_bytes else image
                return Drawing(picture=draw_image(shown, self.side))
        return _draw_values(next(iter(arrays.values())))

    def draw_answer(
        self,
        answer: Answer | None,
        *,
        letterbox: NDArray[Any] | None = None,
        limits: tuple[float, float] | None = None,
    ) -> Drawing | None:
        """Draw an answer.

        Args:
            answer: The answer; ``None`` = there is none.
            letterbox: Place of the image in the input, for boxes.
            limits: The values of black and white of images.
        """
        match answer:
            case Classes(numbers=numbers):
                return self._draw_classes(numbers)
            case Boxes():
                return self._draw_boxes(answer, letterbox)
            case Text(text=text):
                return Drawing(text=_cut(text) if text else "(empty)")
            case Values(numbers=values):
                image = find_image(values)
                if image is not None:
                    return Drawing(picture=draw_image(image, self.side, limits))
                return _draw_values(values)
        return None

    def list_colors(self, answers: Iterable[Answer | None]) -> tuple[Color, ...]:
        """List the colors of the classes in masks."""
        masks = [m for each in answers if isinstance(each, Classes) and (m := find_mask(each))]
        numbers = sorted({int(number) for mask in masks for number in np.unique(mask.numbers)})
        return tuple(
            Color(
                color="#{:02x}{:02x}{:02x}".format(*choose_color(number)),
                label=self.name_class(number),
            )
            for number in numbers[:_MOST_COLORS]
        )

    def _draw_classes(self, numbers: NDArray[np.int64]) -> Drawing:
        mask = find_mask(Classes(numbers=numbers))
        if mask is not None:
            return Drawing(picture=draw_mask(mask.numbers, self.side))
        flat = numbers.reshape(-1)
        names = [self.name_class(int(number)) for number in flat[:_MOST_ITEMS]]
        more = " …" if flat.size > _MOST_ITEMS else ""
        return Drawing(text=", ".join(names) + more if names else "none")

    def _draw_boxes(self, answer: Boxes, letterbox: NDArray[Any] | None) -> Drawing:
        scores = answer.scores
        kept = np.arange(len(answer.corners))
        if scores is not None and scores.size:
            order = np.argsort(-scores, kind="stable")
            sure = order[scores[order] >= _SURE]
            kept = sure if sure.size else order[:1]
        kept = kept[:_MOST_BOXES]
        corners = _place_boxes(answer.corners[kept], letterbox)
        labels = [self.name_class(int(number)) for number in answer.classes[kept]]
        if scores is not None:
            labels = [f"{n} {s:.2f}" for n, s in zip(labels, scores[kept], strict=True)]
        boxes = tuple(
            Box(x1=x1, y1=y1, x2=x2, y2=y2, label=label)
            for (x1, y1, x2, y2), label in zip(corners.tolist(), labels, strict=True)
        )
        return Drawing(boxes=boxes, text=_cut(", ".join(labels) or "no box"))


def find_mask(answer: Classes) -> Classes | None:
    """Return the mask [height, width] of an answer; ``None`` if it is a list of classes."""
    shape = tuple(size for size in answer.numbers.shape if size != 1)
    return Classes(numbers=answer.numbers.reshape(shape)) if len(shape) == 2 else None


def find_limits(answer: Answer | None) -> tuple[float, float] | None:
    """Return the smallest and the largest value of an answer of numbers."""
    if not isinstance(answer, Values) or not answer.numbers.size:
        return None
    return float(answer.numbers.min()), float(answer.numbers.max())


def _place_boxes(
    corners: NDArray[np.float64], letterbox: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Convert boxes from pixels of the stored image to those of the model's input."""
    if letterbox is None or letterbox.size != _LETTERBOX_NUMBERS:
        return corners
    scale, left, top = np.asarray(letterbox, np.float64).reshape(-1)[:3]
    placed: NDArray[np.float64] = corners * scale + np.array([left, top, left, top])
    return placed


def _draw_values(array: NDArray[Any]) -> Drawing:
    """Draw numbers: a few in words, many as a curve."""
    values = np.asarray(array).reshape(-1)
    if values.size <= _MOST_VALUES:
        return Drawing(text=", ".join(f"{value:.4g}" for value in values.tolist()) or "none")
    if values.dtype.kind != "f":
        first = ", ".join(f"{value:g}" for value in values[:_MOST_ITEMS].tolist())
        return Drawing(text=f"{first} … ({values.size:,} values)")
    count = min(_POINTS, values.size)
    points = values[np.arange(count) * values.size // count].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    curve = np.clip((points - low) / ((high - low) or 1.0), 0, 1)
    return Drawing(
        curve=tuple(curve.round(3).tolist()),
        text=f"{values.size:,} values from {low:.4g} to {high:.4g}",
    )


def _cut(text: str) -> str:
    text = escape_text(text)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]} …"
