"""examples.json: the changed samples of a build as its report lists or draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.bounded_reading import read_regular
from edgekit.bundle.manifest import EXAMPLES
from edgekit_agent.files import write_atomic

_MOST_BYTES = 16 << 20
Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=1, le=1 << 20)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Picture(_Record):
    """A PNG in base64, with the width and height of what it shows."""

    png: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+=*$")]
    width: Pixels
    height: Pixels


class Box(_Record):
    """A box in pixels of the picture's width and height, with its class."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str


class Drawing(_Record):
    """An input or an answer: text, picture, boxes, or a curve of values from 0 to 1."""

    text: str = ""
    picture: Picture | None = None
    boxes: tuple[Box, ...] = ()
    curve: tuple[Share, ...] = ()


class Color(_Record):
    """Color of a class in masks, as #rrggbb."""

    color: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
    label: str


class Example(_Record):
    """A changed sample; ``before`` and ``after`` are its values in words, or empty."""

    number: Annotated[int, Field(ge=0)]
    is_worse: bool
    before: str
    after: str
    input: Drawing
    target: Drawing | None = None
    original: Drawing | None = None
    candidate: Drawing | None = None
    colors: tuple[Color, ...] = ()

    @property
    def has_sample(self) -> bool:
        """Return whether the sample is drawn, not only listed by its number."""
        return self.input != Drawing() or any((self.target, self.original, self.candidate))


class Examples(_Record):
    """Examples of the candidate that a build shows.

    Attributes:
        build: The id of the build.
        candidate: Key of the candidate.
        source: Where the candidate was scored: ``host`` or ``device:NAME``.
        title: Name of the values of single samples; empty if they are not shown.
        worse: Number of samples that became worse.
        better: Number of samples that became better.
        n: Number of all samples.
        examples: Some of them, the most changed first.
        note: Why answers are missing; empty if none are.
    """

    build: str
    candidate: str
    source: str
    title: str
    worse: int
    better: int
    n: int
    examples: tuple[Example, ...] = ()
    note: str = ""

    @property
    def has_samples(self) -> bool:
        """Return whether samples are drawn, not only listed by their numbers."""
        return any(each.has_sample for each in self.examples)

    def without_samples(self) -> Examples:
        """Return the numbers and values of the samples without their inputs and answers."""
        listed = tuple(
            Example(
                number=each.number,
                is_worse=each.is_worse,
                before=each.before,
                after=each.after,
                input=Drawing(),
            )
            for each in self.examples
        )
        return self.model_copy(update={"examples": listed})


def write_examples(folder: Path, examples: Examples | None) -> None:
    """Write the examples of a build, or remove those of an earlier one."""
    path = folder / EXAMPLES
    if examples is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(str(path), examples.model_dump_json().encode() + b"\n")


def read_examples(folder: Path, build: str) -> Examples | None:
    """Read the examples of a build; ``None`` if there are none of it, or the file is damaged."""
    try:
        found = Examples.model_validate_json(read_regular(folder / EXAMPLES, _MOST_BYTES))
    except (OSError, ValueError, ValidationError):
        return None
    return found if found.build == build else None
