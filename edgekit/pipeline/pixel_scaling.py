"""Detection of the pixel scaling that a model expects, by its accuracy on labeled samples."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.store import Store
from edgekit.config.project import PreprocessSettings
from edgekit.data.dataset import Dataset, is_scaled
from edgekit.data.subsets import select_spread
from edgekit.data.targets import has_class_labels
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.onnx_graph.runs.activations import get_batch_size, to_agent_tensor
from edgekit.onnx_graph.runs.model_outputs import Arrays, iter_outputs
from edgekit.progress import Tick
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.accuracy import judge
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.samples import Samples

# Number of samples for trying scalings.
SAMPLES = 128
# Significance level of the difference of two scalings; low, as several are tried for each model.
_CHANCE = 1e-4
_KIND = "scalings"


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
    """A scaling, and the samples that the model classifies correctly with it."""

    scaling: Scaling
    hits: NDArray[np.bool_]

    @property
    def correct(self) -> int:
        """Return the number of correctly classified samples."""
        return int(self.hits.sum())

    def __str__(self) -> str:
        return f"{self.scaling.name}: {self.correct} of {len(self.hits)} correct"


def is_unscaled_image(dataset: Dataset, model: Model) -> bool:
    """Return whether labeled bytes are fed to a float input without scaling."""
    samples = dataset.samples
    column, *others = samples.columns
    if others or samples.states or not has_class_labels(samples) or is_scaled(samples.preprocess):
        return False
    spec = next(spec for spec in model.signature.inputs if spec.name == column.name)
    return column.dtype == "uint8" and np.dtype(spec.dtype).kind == "f"


def try_scalings(
    model: Model, dataset: Dataset, *, metric: str, output: str | None, tick: Tick
) -> list[Trial]:
    """Score the model with each common scaling on the same few samples, unscaled bytes first.

    Args:
        model: A model with a float input.
        dataset: Labeled samples of one column of bytes.
        metric: Metric that decides which predictions are correct.
        output: The output to score; ``None`` = the first.
        tick: Progress callback.

    Raises:
        UserError: The model fails on the samples, or samples, output and metric do not fit.
    """
    channels = dataset.samples.columns[0].shape[-1]
    fitting = [s for s in SCALINGS if len(s.mean) in (1, channels)]
    parts = select_spread(dataset.samples, SAMPLES)
    total = sum(part.columns[0].shape[0] for part in parts) * len(fitting)
    tried: list[Trial] = []
    for scaling in fitting:
        hits: list[bool] = []
        before = len(tried) * (total // len(fitting))
        for right in _score_batches(
            model, [_scale(part, scaling) for part in parts], metric, output
        ):
            hits += right
            tick("trying pixel scalings", before + len(hits), total)
        tried.append(Trial(scaling=scaling, hits=np.array(hits)))
    return tried


def find_clearly_best(tried: Sequence[Trial]) -> Trial | None:
    """Find the most accurate scaling, if it is significantly better than unscaled bytes."""
    raw, best = tried[0], max(tried, key=lambda each: each.correct)
    return best if best is not raw and _is_significant(best.hits, raw.hits) else None


def refuse_unscaled(
    model: Model,
    dataset: Dataset,
    *,
    metric: str,
    output: str | None,
    settings: PreprocessSettings | None,
    store: Store,
    tick: Tick,
) -> None:
    """Refuse unscaled bytes as model input if a scaling is significantly more accurate.

    An earlier result for the same model and samples is taken from the store.

    Args:
        model: The original.
        dataset: Labeled samples.
        metric: Metric that decides which predictions are correct.
        output: The output to score; ``None`` = the first.
        settings: Preprocessing of edgekit.toml.
        store: Store of earlier results.
        tick: Progress callback.

    Raises:
        UserError: A scaling is better; the message shows its settings.
    """
    if not is_unscaled_image(dataset, model):
        return
    facts = [model.digest, dataset.digest, metric, output]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if store.recall(_KIND, key) is not None:
        return
    tried = try_scalings(model, dataset, metric=metric, output=output, tick=tick)
    best = find_clearly_best(tried)
    if best is None:
        store.remember(_KIND, key, {"unscaled": True})
        return
    raw, name = tried[0], dataset.samples.columns[0].name
    raise UserError(
        f"{dataset.source}: bytes (uint8) are fed to the float input {name} without scaling; the "
        f"model then predicts {raw.correct} of {len(raw.hits)} samples correctly, and "
        f"{best.correct} with scaling ({best.scaling.name})",
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


def _score_batches(
    model: Model, parts: Sequence[Samples], metric: str, output: str | None
) -> Iterator[list[bool]]:
    """Yield for each batch whether each prediction is correct."""
    tensors = tuple(map(to_agent_tensor, model.signature.inputs))
    size = get_batch_size(parts[0], model.signature)
    name = output or model.signature.outputs[0].name
    waiting: list[tuple[int, NDArray[np.generic] | None]] = []

    def feeds() -> Iterator[Arrays]:
        for part in parts:
            for batch in iter_batches(part, tensors, size):
                waiting.append((batch.rows, batch.labels))
                yield batch.inputs

    try:
        for made in iter_outputs(model, feeds()):
            rows, labels = waiting.pop()
            if isinstance(made, str) or labels is None:
                raise UserError(f"{model.display_name}: the model fails on the samples: {made}")
            values = made[name].reshape(size, -1)[:rows]
            yield judge(values, labels.reshape(-1).astype(np.int64), metric)[0]
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error


def _scale(samples: Samples, scaling: Scaling) -> Samples:
    how = samples.preprocess or PreprocessSettings().to_preprocess()
    scaled = replace(how, scale=scaling.scale, mean=scaling.mean, std=scaling.std)
    return replace(samples, preprocess=scaled)


def _is_significant(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Return whether one scaling is significantly better than another (exact McNemar test).

    Source: McNemar 1947, one-sided: if both are equally good, each is right on half of the samples
    on which they differ.
    """
    better, worse = int((one & ~other).sum()), int((~one & other).sum())
    differing = better + worse
    chance = sum(math.comb(differing, k) for k in range(better, differing + 1)) / 2**differing
    return better > worse and chance < _CHANCE
