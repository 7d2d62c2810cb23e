"""Samples on disk, one model input each, from which batches are drawn in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.errors import PassRefused, UserError
from edgekit.onnx_graph.runs.activations import get_input_tensors
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import Batch, find_batch_size, iter_batches
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import Samples

Arrays = dict[str, NDArray[np.generic]]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

# TensorFlow prepares a graph for each shape of its inputs; samples of rarer shapes are left out.
_MOST_SHAPES = 4
_MOST_BYTES = 2 << 30


@dataclass(kw_only=True)
class _Group:
    """Samples of one shape, and the places of those that are in the pool."""

    places: NDArray[np.int64]
    arrays: Arrays  # all samples of the shape, mapped into memory


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
        left_out: number of samples of rare sizes, which are not in the pool.

    Raises:
        UserError: the samples do not fit the model.
        PassRefused: there are none of a common shape.
    """

    def __init__(
        self, proto: ModelProto, parts: Sequence[Samples], folder: Path, *, most: int
    ) -> None:
        tensors = get_input_tensors(proto)
        self.size = find_batch_size(parts[0], tensors) or 0
        self.axes = {c.name: c.axis for c in parts[0].columns}
        if any(axis < 0 for axis in self.axes.values()):
            self.size = 1
        self.constants: Arrays = {}
        found = self._store(parts, tensors, folder, most)
        common = sorted(found, key=lambda group: -len(group.places))[:_MOST_SHAPES]
        self._groups = [group for group in common if len(group.places) >= max(self.size, 1)]
        if not self._groups:
            raise PassRefused(
                "there are too few samples of one size to learn from",
                hint=f"give at least {max(self.size, 1)}, as many as the model takes at once",
            )
        self.left_out = sum(len(group.places) for group in found) - self.count

    def _store(
        self, parts: Sequence[Samples], tensors: Sequence[Tensor], folder: Path, most: int
    ) -> list[_Group]:
        """Write samples to files by their shapes, until there are enough; return the groups."""
        counts: dict[Shapes, int] = {}
        types: dict[str, np.dtype[np.generic]] = {}
        left = _MOST_BYTES
        with ExitStack() as stack:
            files: dict[Shapes, dict[str, BinaryIO]] = {}
            for batch in islice(_iter_samples(parts, tensors), most):
                rows = {n: v for n, v in batch.inputs.items() if n in self.axes}
                self.constants = {n: v for n, v in batch.inputs.items() if n not in rows}
                left -= sum(value.nbytes for value in rows.values())
                if left < 0:
                    break
                types = {name: value.dtype for name, value in rows.items()}
                shapes = tuple((name, value.shape) for name, value in sorted(rows.items()))
                if shapes not in files:
                    files[shapes] = {
                        name: stack.enter_context((folder / f"{len(files)}-{i}").open("wb"))
                        for i, name in enumerate(rows)
                    }
                for name, value in rows.items():
                    files[shapes][name].write(np.ascontiguousarray(value).tobytes())
                counts[shapes] = counts.get(shapes, 0) + 1
        return [
            _Group(
                places=np.arange(count),
                arrays={
                    name: np.memmap(
                        files[shapes][name].name, types[name], "r", shape=(count, *shape)
                    )
                    for name, shape in shapes
                },
            )
            for shapes, count in counts.items()
        ]

    @property
    def count(self) -> int:
        """Return the number of samples."""
        return sum(len(group.places) for group in self._groups)

    def draw(self, count: int, rng: np.random.Generator) -> list[Arrays]:
        """Draw a batch at random, of one shape, in as many runs as the model demands.

        Args:
            count: samples in the batch; rounded up to a multiple of ``size``.
            rng: decides which.
        """
        chances = np.array([len(group.places) for group in self._groups], float)
        group = self._groups[int(rng.choice(len(chances), p=chances / chances.sum()))]
        size = self.size or count
        wanted = -(-count // size) * size
        held = len(group.places)
        chosen = rng.permutation(held)[:wanted] if wanted <= held else rng.integers(0, held, wanted)
        return self._read(group, group.places[chosen], size)

    def read_all(self) -> list[Arrays]:
        """Return all samples in runs of as few as the model takes; a last one may be left out."""
        size = self.size or 1
        return [run for group in self._groups for run in self._read(group, group.places, size)]

    def split(self, held: int) -> list[Arrays]:
        """Take samples out of the pool, evenly spread; return them in runs of as few as possible.

        Args:
            held: number of samples to take; never more than a quarter.
        """
        taken: list[Arrays] = []
        total, size = self.count, self.size or 1
        for group in self._groups:
            count = len(group.places)
            share = min(round(held * count / total), count // 4) // size * size
            chosen = np.linspace(0, count - 1, share).round().astype(np.int64)
            taken += self._read(group, group.places[chosen], size)
            group.places = np.delete(group.places, chosen)
        return taken

    def _read(self, group: _Group, places: NDArray[np.int64], size: int) -> list[Arrays]:
        """Read samples in runs of a size; those that fill no run are left out."""
        runs = places[: len(places) // size * size].reshape(-1, size)
        return [
            self.constants | {n: self._stack(n, v[run]) for n, v in group.arrays.items()}
            for run in runs
        ]

    def _stack(self, name: str, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        axis = self.axes[name]
        return np.asarray(rows[0]) if axis < 0 else np.concatenate(list(rows), axis=axis)


def _iter_samples(parts: Sequence[Samples], tensors: Sequence[Tensor]) -> Iterator[Batch]:
    try:
        for part in parts:
            yield from iter_batches(part, tensors, 1)
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error
