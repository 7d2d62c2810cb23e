"""Splits of samples, opened for a model with the settings of a project."""

from __future__ import annotations

from pathlib import Path

from edgekit.cache.store import get_default_root
from edgekit.config.project import FileSettings, PreprocessSettings
from edgekit.data.dataset import Dataset, open_dataset
from edgekit.data.input_settings import Feeding
from edgekit.data.streaming_states import add_states
from edgekit.data.targets import TargetUse
from edgekit.model import Model
from edgekit.progress import Tick, ignore_progress


def open_split(
    source: str | None,
    model: Model,
    *,
    folder: Path,
    feeding: Feeding,
    settings: PreprocessSettings | None,
    files: FileSettings | None = None,
    targets: TargetUse,
    tick: Tick = ignore_progress,
) -> Dataset | None:
    """Open a split and bind it to a model's inputs; ``None`` if no source is named.

    Raises:
        UserError: The source cannot be read, or does not fit the model.
    """
    if source is None:
        return None
    return open_dataset(
        source,
        model.signature,
        folder=folder,
        cache=get_default_root(),
        settings=settings,
        files=files,
        feeding=feeding,
        targets=targets,
        tick=tick,
    )


def open_calibration(
    source: str | None,
    model: Model,
    feeding: Feeding,
    *,
    folder: Path,
    settings: PreprocessSettings | None,
    files: FileSettings | None = None,
    tick: Tick,
) -> Dataset | None:
    """Open the calibration samples; add recurrent states that the model computes along sequences.

    Raises:
        UserError: As ``open_split``, or the model fails on a step.
    """
    found = open_split(
        source,
        model,
        feeding=feeding,
        folder=folder,
        settings=settings,
        files=files,
        targets="none",
        tick=tick,
    )
    return add_carried_states(found, model, feeding, tick)


def add_carried_states(
    found: Dataset | None, model: Model, feeding: Feeding, tick: Tick
) -> Dataset | None:
    """Return calibration samples with the recurrent states that the model computes along them.

    Raises:
        UserError: The model fails on a step.
    """
    if found is None or not found.samples.states:
        return found
    return add_states(found, model, dims=feeding.dims, cache=get_default_root(), tick=tick)
