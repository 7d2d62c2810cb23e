"""The data that a model is fed with, as host and agent describe it to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple


@dataclass(frozen=True)
class Column:
    """Rows of one array on disk: ``shape[0]`` samples, C order, from ``offset`` of ``path``.

    ``axis`` is the axis of the model input along which samples are stacked; -1 where it has none,
    so that each row is a whole input and is fed by itself.
    """

    name: str
    path: str
    offset: int
    dtype: str
    shape: Tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class Preprocess:
    """``(x * scale - mean) / std`` over the last axis, then NHWC to NCHW if ``channels_first``."""

    scale: float = 1.0
    mean: Tuple[float, ...] = (0.0,)
    std: Tuple[float, ...] = (1.0,)
    channels_first: bool = False


@dataclass(frozen=True)
class State:
    """An input that takes an output of the run before.

    ``initial`` holds the one row that each sequence begins with; its name is the input's.
    """

    output: str
    initial: Column


@dataclass(frozen=True)
class Samples:
    """A column, a constant or a state per model input (named as it), and labels if any.

    ``constants`` are whole inputs, ``shape`` and all, the same in every run. ``sequence`` numbers
    the sequences whose steps the samples are, in order: states begin anew where it changes;
    without it, all samples are one sequence. ``first`` is the number of the first sample in the
    user's data, for messages.
    """

    columns: Tuple[Column, ...]
    label: Optional[Column] = None
    preprocess: Optional[Preprocess] = None
    constants: Tuple[Column, ...] = ()
    states: Tuple[State, ...] = ()
    sequence: Optional[Column] = None
    first: int = 0

    def files(self) -> Tuple[Column, ...]:
        """Everything that lies on disk."""
        single = [c for c in (self.label, self.sequence) if c is not None]
        return (*self.columns, *self.constants, *(s.initial for s in self.states), *single)
