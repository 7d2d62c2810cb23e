"""Descriptions of model inputs exchanged by host and agent: columns, constants, states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from edgekit_agent.protocol import mark_added

TARGET = "y"


@dataclass(frozen=True)
class Column:
    """Rows of one array on disk: ``shape[0]`` samples, C order, from ``offset`` of ``path``.

    ``axis`` is the axis of the model input along which samples are stacked. It is -1 if there is
    none: each row is a whole input and is fed alone.
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
    """An input that receives an output of the previous run.

    ``initial`` holds the initial row of each sequence; its name is the name of the input.
    """

    output: str
    initial: Column


@dataclass(frozen=True)
class Samples:
    """A column, a constant or a state for each model input, by its name, and targets if any.

    ``label`` is the main target, of any shape; ``targets`` are further ones, each under its name.
    ``constants`` are complete inputs that are the same in every run. ``sequence`` holds the number
    of the sequence of each sample: states are reset where it changes. Without it, all samples are
    one sequence. ``first`` is the number of the first sample in the user's data, for messages.

    ``lengths`` holds, under the name of an input whose rows are padded to one size, the size of
    each sample along the first axis of its row, or along several first axes. Each sample is cut to
    its size and run alone.
    """

    columns: Tuple[Column, ...]
    label: Optional[Column] = None
    preprocess: Optional[Preprocess] = None
    constants: Tuple[Column, ...] = ()
    states: Tuple[State, ...] = ()
    sequence: Optional[Column] = None
    first: int = 0
    targets: Tuple[Column, ...] = field(default=(), metadata=mark_added())
    lengths: Tuple[Column, ...] = field(default=(), metadata=mark_added())

    def get_targets(self) -> Dict[str, Column]:
        """Return the columns of all targets by name; the main one is called ``y``."""
        main = {TARGET: self.label} if self.label is not None else {}
        return {**main, **{column.name: column for column in self.targets}}

    def files(self) -> Tuple[Column, ...]:
        """Return all columns stored in files."""
        single = [c for c in (self.label, self.sequence) if c is not None]
        states = (state.initial for state in self.states)
        return (*self.columns, *self.constants, *states, *single, *self.targets, *self.lengths)
