"""Squared errors of a model's outputs, sample by sample, each part relative to its own size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.instrument import Additions, open_offloaded
from edgekit.graphs.observe import Run, feed, input_tensors
from edgekit.graphs.onnx_file import open_session
from edgekit.graphs.output_parts import judged_parts
from edgekit_agent.records import Samples

Floats64 = NDArray[np.float64]

# A part whose entries are all zeros says nothing.
_NOTHING = 1e-30
# One-sided 95 % quantile of the normal distribution.
_SURE = 1.645
# Least part of the error that a refinement must take away.
_WORTH = 0.02


@dataclass(frozen=True, kw_only=True)
class OutputErrors:
    """Squared errors and squared sizes ``[samples, parts]`` of a version of a model."""

    error: Floats64
    size: Floats64

    @property
    def total(self) -> float:
        """The mean over the parts of squared error over squared size."""
        return float(self.by_sample.mean())

    @property
    def by_sample(self) -> Floats64:
        """The error of each sample, relative to the mean size of each part."""
        size = self.size.mean(axis=0)
        said = size > _NOTHING
        if not said.any() or not len(size):
            return np.zeros(len(self.error))
        relative: Floats64 = (self.error[:, said] / size[said]).mean(axis=1)
        return relative

    def beats(self, other: OutputErrors, *, by: float = _WORTH) -> bool:
        """Whether the error is lower than another's by more than its noise, sample by sample.

        The mean logarithm of the ratio must be negative by its one-sided 95 % bound, and the
        total lower by the part ``by``.
        """
        mine, theirs = self.by_sample, other.by_sample
        if not self.total < (1 - by) * other.total:
            return False
        floor = max(float(theirs.mean()) * 1e-9, _NOTHING)
        ratios = np.log(np.maximum(mine, floor)) - np.log(np.maximum(theirs, floor))
        if len(ratios) < 2:
            return True
        noise = float(ratios.std(ddof=1)) / math.sqrt(len(ratios))
        return bool(ratios.mean() + _SURE * noise < 0)


def joined(errors: Sequence[OutputErrors]) -> OutputErrors:
    """The errors of several sets of samples as one."""
    return OutputErrors(
        error=np.concatenate([each.error for each in errors]),
        size=np.concatenate([each.size for each in errors]),
    )


def output_errors(
    index: GraphIndex, path: Path, judged: Sequence[str], parts: Sequence[Samples]
) -> OutputErrors:
    """The errors of a file's outputs against those of the model.

    Args:
        index: of the model in float.
        path: its 8-bit version, run as a user would run it.
        judged: values of the file; in the order of ``judged_parts`` of the model.
        parts: the samples to judge on.
    """
    expected = judged_parts(index.proto)
    session = open_offloaded(index, Additions(outputs=list(dict.fromkeys(expected))))
    tensors = input_tensors(index.proto)
    rows = [
        [squared(before[o], after[n]) for o, n in zip(expected, judged, strict=True)]
        for before, after in zip(
            _ran(feed(session, tensors, parts), expected),
            _ran(feed(open_session(path), tensors, parts), judged),
            strict=True,
        )
    ]
    table = np.array(rows, np.float64).reshape(len(rows), -1, 2)
    return OutputErrors(error=table[..., 0], size=table[..., 1])


def _ran(
    fed: Iterator[tuple[object, Run]], wanted: Sequence[str]
) -> Iterator[dict[str, NDArray[np.generic]]]:
    names = list(dict.fromkeys(wanted))
    for _, run in fed:
        yield run(names, {})


def squared(old: NDArray[np.generic], new: NDArray[np.generic]) -> tuple[float, float]:
    """Squared error and squared size over the finite entries of a float value; else nothing."""
    if old.dtype.kind != "f" or old.shape != new.shape:
        return 0.0, 0.0
    before = old.astype(np.float64)
    finite = np.isfinite(before)
    error = np.square(new.astype(np.float64) - before)[finite].sum()
    return float(error), float(np.square(before[finite]).sum())
