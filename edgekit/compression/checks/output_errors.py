"""Squared errors of model outputs by sample, relative to the size of each output part."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import open_session
from edgekit.onnx_graph.output_differences import compute_squared_error
from edgekit.onnx_graph.output_parts import find_output_parts
from edgekit.onnx_graph.runs.activations import Run, feed, get_input_tensors
from edgekit.onnx_graph.runs.instrumented_session import Additions, open_offloaded
from edgekit_agent.samples import Samples

Floats64 = NDArray[np.float64]

# Parts smaller than this are zeros and are ignored.
_NOTHING = 1e-30
# One-sided 95 % quantile of the normal distribution.
_SURE = 1.645
# Smallest part of the error that a refinement must remove.
_WORTH = 0.02


@dataclass(frozen=True, kw_only=True)
class OutputErrors:
    """Squared errors and squared sizes, ``[samples, parts]``, of one version of a model."""

    error: Floats64
    size: Floats64

    @property
    def total(self) -> float:
        """Return the mean over the parts of squared error over squared size."""
        return float(self.by_sample.mean())

    @property
    def by_sample(self) -> Floats64:
        """Return the error of each sample, relative to the mean size of each part."""
        size = self.size.mean(axis=0)
        said = size > _NOTHING
        if not said.any() or not len(size):
            return np.zeros(len(self.error))
        relative: Floats64 = (self.error[:, said] / size[said]).mean(axis=1)
        return relative

    @property
    def by_part(self) -> Floats64:
        """Return the error of each part, relative to its size."""
        size = self.size.mean(axis=0)
        said = size > _NOTHING
        relative: Floats64 = np.where(said, self.error.mean(axis=0), 0.0) / np.where(said, size, 1)
        return relative

    def beats(self, other: OutputErrors, *, by: float = _WORTH) -> bool:
        """Return whether the error is significantly lower than another, compared by sample.

        The total must be lower by the share ``by``, and significantly so. So must the error of the
        part with the largest error in the other: outputs that are accurate anyway decide nothing.
        """
        if not self.total < (1 - by) * other.total:
            return False
        worst = int(other.by_part.argmax())
        return _is_lower(self.by_sample, other.by_sample) and _is_lower(
            self.error[:, worst], other.error[:, worst]
        )


def _is_lower(mine: Floats64, theirs: Floats64) -> bool:
    """Return whether the one-sided 95 % bound of the mean log ratio is below zero."""
    floor = max(float(theirs.mean()) * 1e-9, _NOTHING)
    ratios = np.log(np.maximum(mine, floor)) - np.log(np.maximum(theirs, floor))
    if len(ratios) < 2:
        return True
    noise = float(ratios.std(ddof=1)) / math.sqrt(len(ratios))
    return bool(ratios.mean() + _SURE * noise < 0)


def join_errors(errors: Sequence[OutputErrors]) -> OutputErrors:
    """Concatenate the errors of several sets of samples."""
    return OutputErrors(
        error=np.concatenate([each.error for each in errors]),
        size=np.concatenate([each.size for each in errors]),
    )


class FloatOutputs:
    """Reference outputs of the float model on some samples, stored in files."""

    def __init__(self, index: GraphIndex, samples: Sequence[Samples], folder: Path) -> None:
        self._samples = samples
        self._tensors = get_input_tensors(index.proto)
        self._names = find_output_parts(index.proto)
        self._folder = Path(tempfile.mkdtemp(prefix="outputs-", dir=folder))
        session = open_offloaded(index, Additions(outputs=list(dict.fromkeys(self._names))))
        for number, made in enumerate(
            _run_samples(feed(session, self._tensors, samples), self._names)
        ):
            np.savez(self._folder / f"{number}.npz", *(made[name] for name in self._names))

    def errors(self, path: Path, judged: Sequence[str]) -> OutputErrors:
        """Measure the output errors of a version, run as an application would run it.

        Args:
            path: the file.
            judged: values of the file, in the order of ``find_output_parts`` of the model.
        """
        rows = []
        fed = feed(open_session(path), self._tensors, self._samples)
        for number, made in enumerate(_run_samples(fed, judged)):
            with np.load(self._folder / f"{number}.npz") as before:
                pairs = zip(before.files, judged, strict=True)
                rows.append([compute_squared_error(before[old], made[new]) for old, new in pairs])
        table = np.array(rows, np.float64).reshape(len(rows), -1, 2)
        return OutputErrors(error=table[..., 0], size=table[..., 1])


def _run_samples(
    fed: Iterator[tuple[object, Run]], wanted: Sequence[str]
) -> Iterator[dict[str, NDArray[np.generic]]]:
    names = list(dict.fromkeys(wanted))
    for _, run in fed:
        yield run(names, {})
