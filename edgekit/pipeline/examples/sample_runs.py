"""Outputs of a model for a few samples, run by the agent of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.column_rows import read_column
from edgekit.data.subsets import map_columns
from edgekit.errors import DeviceError
from edgekit.pipeline.timing import Agent
from edgekit_agent.measure.feeds import open_columns
from edgekit_agent.metrics.outputs import OUTPUTS, decode_outputs
from edgekit_agent.metrics.rows import decode_rows, join_pieces
from edgekit_agent.samples import Column, Samples
from edgekit_agent.scoring import MetricJob, MetricOptions, Postprocess
from edgekit_agent.worker_jobs import Combination, ModelRef, ScoreJob
from edgekit_agent.worker_results import StageProgress, Statistics, Tally

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class ChosenSamples:
    """Copies of some samples; a step of a sequence comes after the steps before it.

    Attributes:
        samples: The copies.
        places: Place of each chosen sample among them.
    """

    samples: Samples
    places: tuple[int, ...]


def list_rows(samples: Samples, numbers: Sequence[int]) -> list[list[int]]:
    """Return for each chosen sample the rows that must be run for it, itself the last."""
    if not samples.states:
        return [[number] for number in numbers]
    if samples.sequence is None:
        return [list(range(number + 1)) for number in numbers]
    sequences = read_column(samples.sequence)
    starts = np.flatnonzero(np.diff(sequences, prepend=~sequences[:1]))
    return [
        list(range(int(starts[np.searchsorted(starts, number, side="right") - 1]), number + 1))
        for number in numbers
    ]


def copy_samples(samples: Samples, rows: Sequence[Sequence[int]], folder: Path) -> ChosenSamples:
    """Copy rows of samples into files of a folder.

    Args:
        samples: The samples.
        rows: Rows of each chosen sample, itself the last, from ``list_rows``.
        folder: An empty folder.
    """
    wanted = [number for each in rows for number in each]

    def copy(column: Column) -> Column:
        path = folder / str(sum(1 for _ in folder.iterdir()))
        with open_columns([column]) as opened, path.open("wb") as file:
            for number in wanted:
                file.write(opened[column.name].read(number, 1).tobytes())
        return replace(column, path=str(path), offset=0, shape=(len(wanted), *column.shape[1:]))

    copied = replace(map_columns(samples, copy), first=0)
    if samples.states:
        path = folder / "sequence"
        numbers = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        path.write_bytes(numbers.astype(np.int64).tobytes())
        sequence = Column("sequence", str(path), 0, "int64", numbers.shape)
        copied = replace(copied, sequence=sequence)
    places = np.cumsum([len(each) for each in rows]) - 1
    return ChosenSamples(samples=copied, places=tuple(places.tolist()))


def run_samples(
    agent: Agent,
    model: ModelRef,
    chosen: ChosenSamples,
    *,
    options: MetricOptions,
    postprocess: Postprocess | None,
    combination: Combination | None = None,
) -> list[Arrays]:
    """Run a model on samples; return the outputs of each chosen one, after post-processing.

    Args:
        agent: The agent of this machine.
        model: The model.
        chosen: The samples.
        options: Options of the metric.
        postprocess: Post-processing of the outputs.
        combination: Several models, of which ``model`` is one, that are run instead.

    Raises:
        DeviceError: The model fails on a sample, or its outputs are too large.
    """
    job = ScoreJob(
        model,
        chosen.samples,
        OUTPUTS,
        options.output,
        metrics=(MetricJob(OUTPUTS, options),),
        postprocess=postprocess,
        combination=combination,
    )
    collected = _Collector(wanted=frozenset(chosen.places))
    collected.add(agent.ask(job, Tally, progress=collected.receive))
    if not collected.wanted <= collected.found.keys():
        raise DeviceError("invalid answer of the agent: outputs of samples are missing")
    return [collected.found[place] for place in chosen.places]


class _Collector:
    """Collects the outputs of wanted samples from the parts of an answer."""

    def __init__(self, *, wanted: frozenset[int]) -> None:
        self.wanted = wanted
        self.found: dict[int, Arrays] = {}
        self._next = 0
        self._pieces: list[Statistics] = []

    def receive(self, said: StageProgress) -> None:
        """Take the part in a progress report, if any."""
        if said.part is None:
            return
        if said.part.piece is not None:
            self._pieces.append(said.part.piece)
        else:
            self.add(said.part.tally)

    def add(self, tally: Tally) -> None:
        """Take the outputs of the next samples."""
        if not tally.n:
            return
        found = tally.statistics[0]
        if self._pieces:  # of the row of one sample
            found, self._pieces = join_pieces(self._pieces, found), []
        rows = decode_rows(found, tally.n)
        for place, row in enumerate(rows, self._next):
            if place in self.wanted:
                self.found[place] = decode_outputs(row)
        self._next += tally.n
