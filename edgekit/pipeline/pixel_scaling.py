"""Detection of the pixel scaling that a model expects, by its accuracy on labeled samples."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.results import Score
from edgekit.cache.store import Store
from edgekit.config.project import PreprocessSettings
from edgekit.data.dataset import Dataset, is_scaled
from edgekit.data.subsets import select_spread
from edgekit.data.targets import has_class_labels
from edgekit.errors import UserError
from edgekit.metrics.comparison import compare
from edgekit.metrics.metric import Metric, Table
from edgekit.metrics.registry import get_metric
from edgekit.model import Model
from edgekit.onnx_graph.runs.activations import get_batch_size, to_agent_tensor
from edgekit.onnx_graph.runs.model_outputs import Arrays, iter_outputs
from edgekit.pipeline.accuracy.tallies import Scoring, build_score, drop_unscored
from edgekit.progress import Tick
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import Batch, iter_batches
from edgekit_agent.measure.scored_samples import iter_scored_samples
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.samples import Samples
from edgekit_agent.scoring import MetricJob, MetricOptions

# Number of samples for trying scalings.
SAMPLES = 128
# Significance level of the difference of two scalings; low, as several are tried for each model.
_CHANCE = 1e-4
_KIND = "scalings"
_Statistic = Callable[[ScoredSample, MetricOptions], NDArray[np.float64]]
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


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A scaling, and the value of the metric with it."""

    scaling: Scaling
    metric: Metric
    job: MetricJob
    table: Table

    @property
    def score(self) -> Score:
        """Return the value of the metric on the samples."""
        return build_score(self.metric, self.table, self.job)

    def __str__(self) -> str:
        return f"{self.scaling.name}: {_format_score(self.score)}"


def _format_score(score: Score) -> str:
    if score.correct is not None:
        return f"{score.correct} of {score.n} correct"
    return f"{score.title} {score}"


def is_unscaled_image(dataset: Dataset, model: Model) -> bool:
    """Return whether labeled bytes are fed to a float input without scaling."""
    samples = dataset.samples
    column, *others = samples.columns
    if others or samples.states or not has_class_labels(samples) or is_scaled(samples.preprocess):
        return False
    spec = next(spec for spec in model.signature.inputs if spec.name == column.name)
    return column.dtype == "uint8" and np.dtype(spec.dtype).kind == "f"


def try_scalings(model: Model, dataset: Dataset, *, scoring: Scoring, tick: Tick) -> list[Trial]:
    """Score the model with each common scaling on the same few samples, unscaled bytes first.

    Args:
        model: A model with a float input.
        dataset: Samples of one column of bytes, with targets.
        scoring: Metrics, of which the first is computed, and post-processing.
        tick: Progress callback.

    Raises:
        UserError: The model fails on the samples, or samples, output and metric do not fit.
    """
    channels = dataset.samples.columns[0].shape[-1]
    fitting = [s for s in SCALINGS if len(s.mean) in (1, channels)]
    parts = select_spread(dataset.samples, SAMPLES)
    total = sum(part.columns[0].shape[0] for part in parts) * len(fitting)
    tried: list[Trial] = []
    job = scoring.metrics[0]
    for scaling in fitting:
        rows: list[NDArray[np.float64]] = []
        before = len(tried) * (total // len(fitting))
        for found in _iter_rows(model, [_scale(part, scaling) for part in parts], scoring):
            rows.append(found)
            tick("trying pixel scalings", before + len(rows), total)
        table = drop_unscored(Table(rows=tuple(rows)))
        if not table.n:
            raise UserError(f"{dataset.source}: no sample is scored by {job.name}")
        metric = get_metric(job.name)
        tried.append(Trial(scaling=scaling, metric=metric, job=job, table=table))
    return tried


def find_clearly_best(tried: Sequence[Trial]) -> Trial | None:
    """Find the best scaling, if it is significantly better than unscaled bytes."""
    raw = tried[0]
    sign = 1 if raw.metric.higher_is_better else -1
    best = max(tried, key=lambda each: sign * each.score.value)
    return best if best is not raw and _is_significant(best, raw) else None


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
    tried = try_scalings(model, dataset, scoring=scoring, tick=tick)
    best = find_clearly_best(tried)
    if best is None:
        store.remember(_KIND, key, {"unscaled": True})
        return
    raw, name = tried[0], dataset.samples.columns[0].name
    raise UserError(
        f"{dataset.source}: bytes (uint8) are fed to the float input {name} without scaling; the "
        f"model then reaches {_format_score(raw.score)}, and with scaling ({best.scaling.name}) "
        f"{_format_score(best.score)}",
        hint="add to edgekit.toml:\n\n" + format_toml(set_scaling(best.scaling, settings)),
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


def _iter_rows(
    model: Model, parts: Sequence[Samples], scoring: Scoring
) -> Iterator[NDArray[np.float64]]:
    """Yield the statistic of each sample by the first metric."""
    tensors = tuple(map(to_agent_tensor, model.signature.inputs))
    size = get_batch_size(parts[0], model.signature)
    job, waiting = scoring.metrics[0], list[Batch]()

    def feeds() -> Iterator[Arrays]:
        for part in parts:
            for batch in iter_batches(part, tensors, size):
                waiting.append(batch)
                yield batch.inputs

    try:
        statistic = _get_statistic(job)
        for made in iter_outputs(model, feeds()):
            batch = waiting.pop()
            if isinstance(made, str):
                raise UserError(f"{model.display_name}: the model fails on the samples: {made}")
            outputs = {spec.name: made[spec.name] for spec in model.signature.outputs}
            for sample in iter_scored_samples(
                batch, outputs, (job.options.output,), scoring.postprocess
            ):
                yield statistic(sample, job.options)
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error


def _get_statistic(job: MetricJob) -> _Statistic:
    """Return the function that computes the row of a sample, also for code of the user."""
    code = get_metric(job.name).code
    if code is None:
        return load_statistic(job.name)
    return lambda sample, _: code.compute_values(
        [sample.outputs], [sample.targets], first=sample.number
    )


def _needs_all_samples(scoring: Scoring) -> bool:
    """Return whether the first metric is a class of the user, which has no rows of samples."""
    code = get_metric(scoring.names[0]).code
    return code is not None and code.is_class


def _scale(samples: Samples, scaling: Scaling) -> Samples:
    how = samples.preprocess or PreprocessSettings().to_preprocess()
    scaled = replace(how, scale=scaling.scale, mean=scaling.mean, std=scaling.std)
    return replace(samples, preprocess=scaled)


def _is_significant(best: Trial, raw: Trial) -> bool:
    """Return whether one scaling is significantly better than another.

    Source for proportions: McNemar 1947, one-sided: if both are equally good, each is right on half
    of the samples on which they differ. Other metrics: paired bootstrap.
    """
    if not best.metric.is_proportion:
        found = compare(
            best.metric, best.table, raw.table, options=best.job.options, resamples=_RESAMPLES
        )
        return found.interval[0] > 0
    one, other = (trial.table.stack()[:, 0] > 0 for trial in (best, raw))
    better, worse = int((one & ~other).sum()), int((~one & other).sum())
    differing = better + worse
    chance = sum(math.comb(differing, k) for k in range(better, differing + 1)) / 2**differing
    return better > worse and chance < _CHANCE
