"""Detection of the pixel scaling that a model expects, by its accuracy on labeled samples."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.cache.store import Store
from edgekit.config.project import PreprocessSettings
from edgekit.data.dataset import Dataset, is_scaled
from edgekit.data.subsets import select_spread
from edgekit.errors import UserError
from edgekit.metrics.comparison import compare
from edgekit.metrics.registry import get_metric
from edgekit.model import Model
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.pipeline.proposals.sample_rows import Head
from edgekit.pipeline.proposals.trials import (
    Candidate,
    Trial,
    choose_best,
    scale_parts,
    try_candidates,
)
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

# Number of samples for trying scalings.
SAMPLES = 128
# Significance level of the difference of two scalings; low, as several are tried for each model.
_CHANCE = 1e-4
_KIND = "scalings"
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Common scaling of bytes, ``(x * scale - mean) / std``, global or per channel."""

    name: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


RAW = Scaling(name="no scaling")
SCALINGS = (
    RAW,
    Scaling(name="0 to 1", scale=1 / 255),
    Scaling(name="-1 to 1", mean=(127.5,), std=(127.5,)),
    Scaling(
        name="mean and standard deviation of ImageNet",
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
)


def is_unscaled_image(dataset: Dataset, model: Model) -> bool:
    """Return whether bytes with targets are fed to a float input without scaling."""
    samples = dataset.samples
    column, *others = samples.columns
    if others or samples.states or samples.label is None or is_scaled(samples.preprocess):
        return False
    spec = next(spec for spec in model.signature.inputs if spec.name == column.name)
    return column.dtype == "uint8" and np.dtype(spec.dtype).kind == "f"


def list_scalings(samples: Samples) -> tuple[Scaling, ...]:
    """Return the common scalings that fit the channels of the samples, unscaled bytes first."""
    channels = samples.columns[0].shape[-1]
    return tuple(scaling for scaling in SCALINGS if len(scaling.mean) in (1, channels))


def try_scalings(
    model: Model,
    dataset: Dataset,
    *,
    scoring: Scoring,
    settings: PreprocessSettings | None,
    tick: Tick,
) -> list[Trial]:
    """Score the model with each common scaling on the same few samples, unscaled bytes first.

    Args:
        model: A model with a float input.
        dataset: Samples of one column of bytes, with targets.
        scoring: Metrics, of which the first is computed, and post-processing.
        settings: Preprocessing of the samples.
        tick: Progress callback.

    Raises:
        UserError: The model fails on the samples, or samples, output and metric do not fit.
    """
    head = Head(table=None, scoring=replace(scoring, metrics=scoring.metrics[:1]))
    parts = select_spread(dataset.samples, SAMPLES)
    candidates = [
        Candidate(name=scaling.name, settings=scaled, parts=scale_parts(parts, scaled))
        for scaling in list_scalings(dataset.samples)
        if (scaled := set_scaling(scaling, settings))
    ]
    return try_candidates(model, candidates, [head], tick=tick)


def find_clearly_best(tried: Sequence[Trial]) -> Trial | None:
    """Find the best scaling, if it is significantly better than unscaled bytes."""
    raw, best = tried[0], choose_best(tried)
    if best is raw or not _is_significant(best, raw):
        return None
    return best


def refuse_unscaled(
    model: Model,
    dataset: Dataset,
    *,
    scoring: Scoring,
    settings: PreprocessSettings | None,
    store: Store,
    tick: Tick,
) -> None:
    """Refuse unscaled bytes as model input if a scaling is significantly more accurate.

    An earlier result for the same model and samples is taken from the store.

    Args:
        model: The original.
        dataset: Labeled samples.
        scoring: Metrics and post-processing.
        settings: Preprocessing of edgekit.toml.
        store: Store of earlier results.
        tick: Progress callback.

    Raises:
        UserError: A scaling is better; the message shows its settings.
    """
    if not is_unscaled_image(dataset, model) or _needs_all_samples(scoring):
        return
    facts = [model.digest, dataset.digest, scoring.digest]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if store.recall(_KIND, key) is not None:
        return
    tried = try_scalings(model, dataset, scoring=scoring, settings=settings, tick=tick)
    best = find_clearly_best(tried)
    if best is None:
        store.remember(_KIND, key, {"unscaled": True})
        return
    raw, name = tried[0], dataset.samples.columns[0].name
    raise UserError(
        f"{dataset.source}: bytes (uint8) are fed to the float input {name} without scaling; the "
        f"model then reaches {raw.value_text}, and with scaling ({best.candidate.name}) "
        f"{best.value_text}",
        hint="add to edgekit.toml:\n\n" + format_toml(best.candidate.settings),
    )


def set_scaling(scaling: Scaling, settings: PreprocessSettings | None) -> PreprocessSettings:
    """Return the settings with another scaling."""
    one = len(scaling.mean) == 1
    return (settings or PreprocessSettings()).model_copy(
        update={
            "scale": scaling.scale,
            "mean": scaling.mean[0] if one else scaling.mean,
            "std": scaling.std[0] if one else scaling.std,
        }
    )


def format_toml(settings: PreprocessSettings) -> str:
    """Format ``[data.preprocess]`` without default values."""
    plain = PreprocessSettings()
    lines = ["[data.preprocess]"]
    for key in PreprocessSettings.model_fields:
        value = getattr(settings, key)
        if value == getattr(plain, key):
            continue
        if isinstance(value, tuple):
            lines.append(f"{key} = [{', '.join(map(repr, value))}]")
        else:
            lines.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value!r}")
    return "\n".join(lines)


def _needs_all_samples(scoring: Scoring) -> bool:
    """Return whether the first metric is a class of the user, which has no rows of samples."""
    code = get_metric(scoring.names[0]).code
    return code is not None and code.is_class


def _is_significant(best: Trial, raw: Trial) -> bool:
    """Return whether one scaling is significantly better than another.

    Source for proportions: McNemar 1947, one-sided: if both are equally good, each is right on half
    of the samples on which they differ. Other metrics: paired bootstrap.
    """
    if raw.trouble:
        return True
    before, after = raw.table, best.table
    if not best.metric.is_proportion:
        found = compare(best.metric, after, before, options=best.job.options, resamples=_RESAMPLES)
        return found.interval[0] > 0
    one, other = (table.stack()[:, 0] > 0 for table in (after, before))
    better, worse = int((one & ~other).sum()), int((~one & other).sum())
    differing = better + worse
    chance = sum(math.comb(differing, k) for k in range(better, differing + 1)) / 2**differing
    return better > worse and chance < _CHANCE
