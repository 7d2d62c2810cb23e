"""Samples on disk, one model input each, from which batches are drawn in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.errors import PassRefused, UserError
from edgekit.onnx_graph.runs.activations import get_input_tensors
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import find_batch_size, iter_batches
from edgekit_agent.samples import Samples

Arrays = dict[str, NDArray[np.generic]]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

# TensorFlow prepares a graph for each shape of its inputs; samples of rarer shapes are left out.
_MOST_SHAPES = 4
_MOST_BYTES = 2 << 30


@dataclass(kw_only=True)
class _Group:
    """Samples of one shape: a file for each input, and the number of samples in it."""

    shapes: Shapes
    count: int = 0
    paths: dict[str, Path] = field(default_factory=dict)
    opened: dict[str, NDArray[np.generic]] = field(default_factory=dict)


class SamplePool:
    """Samples of a model's inputs in files, as the graph gets them.

    Args:
        proto: the model.
        parts: the samples.
        folder: an empty folder for the files; they are not removed.
        most: largest number of samples.

    Attributes:
        size: number of samples that the model demands in each run; 0 if it takes any number.
        axes: axis of each input along which samples are stacked; -1 for an input without one.
        constants: inputs that are the same in every run.

    Raises:
        UserError: the samples do not fit the model.
        PassRefused: there are none of a common shape.
    """

    def __init__(
        self, proto: ModelProto, parts: Sequence[Samples], folder: Path, *, most: int
    ) -> None:
        tensors = get_input_tensors(proto)
        self._folder = folder
        self.size = find_batch_size(parts[0], tensors) or 0
        self.axes = {c.name: c.axis for c in parts[0].columns}
        if any(axis < 0 for axis in self.axes.values()):
            self.size = 1
        self.constants: Arrays = {}
        groups: dict[Shapes, _Group] = {}
        left = _MOST_BYTES
        try:
            for part in parts:
                for batch in iter_batches(part, tensors, 1):
                    rows = {n: v for n, v in batch.inputs.items() if n in self.axes}
                    self.constants = {n: v for n, v in batch.inputs.items() if n not in rows}
                    left -= sum(v.nbytes for v in rows.values())
                    if most == 0 or left < 0:
                        break
                    self._append(groups, rows)
                    most -= 1
        except AgentError as error:
            raise UserError(error.failure.message, hint=error.failure.hint) from error
        common = sorted(groups.values(), key=lambda g: -g.count)[:_MOST_SHAPES]
        self._groups = [g for g in common if g.count >= max(self.size, 1)]
        if not self._groups:
            raise PassRefused(
                "there are too few samples of one size to learn from",
                hint=f"give at least {max(self.size, 1)}, as many as the model takes at once",
            )
        self.left_out = sum(g.count for g in groups.values()) - self.count
        for group in self._groups:
            group.opened = {
                name: np.memmap(group.paths[name], value_type, "r", shape=(group.count, *shape))
                for name, shape in group.shapes
                for value_type in [self._types[name]]
            }

    @property
    def count(self) -> int:
        """Return the number of samples."""
        return sum(group.count for group in self._groups)

    def draw(self, count: int, rng: np.random.Generator) -> list[Arrays]:
        """Draw a batch at random, of one shape, in as many parts as the model demands.

        Args:
            count: samples in the batch; rounded up to a multiple of ``size``.
            rng: decides which.
        """
        chances = np.array([group.count for group in self._groups], float)
        group = self._groups[int(rng.choice(len(chances), p=chances / chances.sum()))]
        size = self.size or count
        parts = -(-count // size)
        chosen = rng.integers(0, group.count, parts * size).reshape(parts, size)
        if parts * size <= group.count:
            chosen = rng.permutation(group.count)[: parts * size].reshape(parts, size)
        return [self._read(group, rows) for rows in chosen]

    def read_all(self) -> list[Arrays]:
        """Return all samples in runs of as few as the model takes; a last one may be left out."""
        runs = []
        for group in self._groups:
            step = self.size or 1
            count = group.count // self.size * self.size if self.size else group.count
            places = np.arange(count)
            runs += [self._read(group, places[i : i + step]) for i in range(0, count, step)]
        return runs

    def split(self, held: int) -> list[Arrays]:
        """Take samples out of the pool, evenly spread; return them in runs of as few as possible.

        Args:
            held: number of samples to take; never more than a quarter.
        """
        taken: list[Arrays] = []
        total = self.count
        for group in self._groups:
            size = self.size or 1
            share = min(round(held * group.count / total), group.count // 4) // size * size
            if not share:
                continue
            places = np.linspace(0, group.count - 1, share).round().astype(np.int64)
            step = self.size or 1
            taken += [self._read(group, places[i : i + step]) for i in range(0, share, step)]
            kept = np.setdiff1d(np.arange(group.count), places)
            group.opened = {n: _Picked(v, kept) for n, v in group.opened.items()}  # type: ignore[misc]
            group.count = len(kept)
        return taken

    _types: dict[str, np.dtype[np.generic]]

    def _append(self, groups: dict[Shapes, _Group], rows: Arrays) -> None:
        shapes = tuple((name, value.shape) for name, value in sorted(rows.items()))
        if shapes not in groups:
            number = len(groups)
            paths = {n: self._folder / f"{number}-{i}" for i, (n, _) in enumerate(shapes)}
            groups[shapes] = _Group(shapes=shapes, paths=paths)
            self._types = {name: value.dtype for name, value in rows.items()}
        group = groups[shapes]
        for name, value in rows.items():
            with group.paths[name].open("ab") as file:
                file.write(np.ascontiguousarray(value).tobytes())
        group.count += 1

    def _read(self, group: _Group, rows: NDArray[np.int64]) -> Arrays:
        fed: Arrays = dict(self.constants)
        for name, values in group.opened.items():
            axis = self.axes[name]
            read = np.asarray(values[rows])
            fed[name] = read[0] if axis < 0 else np.concatenate(list(read), axis=axis)
        return fed


class _Picked:
    """Some rows of an array, in their order."""

    def __init__(self, values: NDArray[np.generic], kept: NDArray[np.int64]) -> None:
        self._values, self._kept = values, kept

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.generic]:
        return self._values[self._kept[rows]]


def count_rows(fed: Mapping[str, NDArray[np.generic]], axes: Mapping[str, int]) -> int:
    """Return the number of samples in the inputs of a run."""
    return next((fed[name].shape[axis] for name, axis in axes.items() if axis >= 0), 1)
