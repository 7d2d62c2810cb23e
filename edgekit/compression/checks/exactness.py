"""Comparison of two equivalent models on random inputs of several scales.

Without samples the range of real inputs is unknown. So the feeds reach both ends of activations,
clips and gates: noise of small, unit and large scale, and large values of one sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.checks.contract_inputs import Probe, choose_narrower, iter_probes
from edgekit.data.input_settings import Feeding
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.onnx_graph.runs.model_outputs import Arrays, iter_outputs
from edgekit_agent.measure.relative_error import compute_relative_rms, compute_rms
from edgekit_agent.samples import Samples

_FAINT, _LOUD = 0.03, 30.0
# Models above this size are slow: they run on two feeds only.
_LARGE_BYTES = 64 << 20
# Relative perturbations of the inputs show how much rounding alone can change the outputs.
_NUDGES = (1e-6, 1e-5)
_BEYOND_ROUNDING = 30.0
# An output is rounding alone if most entries move by a third of its error under the smallest
# perturbation. Few entries may also move so far where an operator jumps (Round, Floor, Less).
_NOISE = 3.0
# A smaller share of differing integers is explained by ties in rounding or in a maximum.
_TIES = 0.1
# The error of a small output is taken relative to this part of its largest size on any feed (of 1
# at least): a runtime's sigmoid has an absolute error of 3e-8 at any size.
_SMALL = 1e-3
# Above it float32 sums may overflow in one order of summation and not in another.
_NEAR_OVERFLOW = 1e30

Values = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Departure:
    """Output that differs by more than rounding explains, on one feed."""

    output: str
    feed: str
    error: float


def find_departure(
    before: Model, after: Model, *, limit: float, seed: int, feeding: Feeding | None = None
) -> Departure | None:
    """Find the output with the largest error above ``limit``; ``None`` where the two models agree.

    Args:
        before: the original.
        after: the result of a pass.
        limit: bound of each float output's RMS error over its RMS, on each feed.
        seed: seed of the noise.
        feeding: input settings of edgekit.toml.

    Raises:
        UserError: ``after`` fails where ``before`` does not.
    """
    feeding = feeding or Feeding()
    sample = find_accepted_feed(before, after, None, seed=seed, feeding=feeding)
    if sample is None:
        return None
    feeds = dict(
        _iter_feeds(sample, seed, feeding, few=max(before.bytes, after.bytes) > _LARGE_BYTES)
    )
    known = _run(before, feeds)
    feeds = {label: feed for label, feed in feeds.items() if label in known}
    found = _run(after, feeds)
    if missing := feeds.keys() - found.keys():
        raise UserError(f"the converted model fails on {min(missing)}")
    scales = _compute_scales(known.values())
    beyond = [
        Departure(output=name, feed=label, error=error)
        for label in feeds
        for name, error in _compute_errors(known[label], found[label], scales).items()
        if error > limit
    ]
    return _find_unexplained(before, beyond, feeds, known, scales)


def find_accepted_feed(
    before: Model,
    after: Model,
    samples: Samples | None,
    *,
    seed: int,
    feeding: Feeding | None = None,
) -> Arrays | None:
    """Find the first sample that the original accepts; without samples, the first random feed.

    If one of the two models has fixed sizes, the feed has them.

    Args:
        before: the original.
        after: the result of a pass.
        samples: real samples; ``None`` = random feeds.
        seed: seed of the random feeds.
        feeding: input settings of edgekit.toml.

    Returns:
        The feed; ``None`` if the original accepts none.
    """
    fed = choose_narrower(before, after)
    tried: list[Probe] = []

    def feeds() -> Iterator[Arrays]:
        for probe in iter_probes(fed, samples, seed=seed, feeding=feeding):
            tried.append(probe)
            yield probe.feed

    for made in iter_outputs(before, feeds()):
        if not isinstance(made, str):
            return tried[-1].feed
    return None


def find_noise_outputs(
    model: Model, samples: Samples, errors: Mapping[str, float], *, seed: int
) -> set[str]:
    """Find the outputs that hold rounding alone, such as the mean of centered values.

    Inputs that differ in their last digits change most of their entries by as much as ``errors``.

    Args:
        model: the original.
        samples: real samples.
        errors: relative error of each output to explain.
        seed: seed of the perturbation's feed.
    """
    sample = find_accepted_feed(model, model, samples, seed=seed)
    if sample is None:
        return set()
    feeds = {"sample": dict(sample), "perturbed": _perturb(dict(sample), _NUDGES[0])}
    answers = _run(model, feeds)
    if len(answers) < len(feeds):
        return set()
    was, now = answers["sample"], answers["perturbed"]
    return {
        name
        for name, error in errors.items()
        if error <= _NOISE * _compute_typical_change(was[name], now[name])
    }


def _compute_typical_change(was: NDArray[np.generic], now: NDArray[np.generic]) -> float:
    """Compute the median change of an entry relative to the RMS; 0 for outputs of another shape."""
    if was.shape != now.shape or not was.size:
        return 0.0
    old, new = (value.astype(np.float64).ravel() for value in (was, now))
    size = compute_rms(old)
    return float(np.median(np.abs(new - old))) / size if size > 0 else 0.0


def _iter_feeds(
    sample: Arrays, seed: int, feeding: Feeding, *, few: bool
) -> Iterator[tuple[str, Values]]:
    for label, feed in _iter_noises(sample, seed, few=few):
        yield label, feed | dict(feeding.constants)


def _iter_noises(sample: Arrays, seed: int, *, few: bool) -> Iterator[tuple[str, Values]]:
    rng = np.random.default_rng(seed + 1)
    noise = {name: _draw_noise(value, rng) for name, value in sample.items()}
    loud = {name: _scale(value, _LOUD) for name, value in noise.items()}
    yield f"noise of {_LOUD:g}", loud
    yield "noise of 1", noise
    if few or not any(value.dtype.kind == "f" for value in sample.values()):
        return
    yield f"noise of {_FAINT:g}", {name: _scale(value, _FAINT) for name, value in noise.items()}
    for sign, label in ((1, "positive"), (-1, "negative")):
        one = {n: _scale(np.abs(v), sign) if v.dtype.kind == "f" else v for n, v in loud.items()}
        yield f"{label} noise of {_LOUD:g}", one


def _draw_noise(value: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.generic]:
    """Draw normal floats, or integers 0 and 1, which are valid as index and as mask."""
    if value.dtype.kind == "f":
        return rng.standard_normal(value.shape, np.float32).astype(value.dtype)
    return rng.integers(0, 2, value.shape).astype(value.dtype)


def _scale(value: NDArray[Any], factor: float) -> NDArray[np.generic]:
    return (value * value.dtype.type(factor)) if value.dtype.kind == "f" else value


def _run(model: Model, feeds: Mapping[str, Arrays]) -> dict[str, Values]:
    """Run a model and return the outputs by feed, without the feeds that it refuses."""
    made = zip(feeds, iter_outputs(model, feeds.values()), strict=True)
    return {label: answer for label, answer in made if not isinstance(answer, str)}


def _compute_scales(answers: Iterator[Values] | Any) -> dict[str, float]:  # noqa: ANN401 - a dict's view
    """Compute the smallest reference size for the relative error of each output."""
    largest: dict[str, float] = {}
    for answer in answers:
        for name, value in answer.items():
            largest[name] = max(largest.get(name, 0.0), compute_rms(_select_usable(value)))
    return {name: _SMALL * max(size, 1.0) for name, size in largest.items()}


def _select_usable(value: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the finite entries that are far from overflow."""
    if value.dtype.kind not in "biuf":
        return np.zeros(0)
    flat = value.astype(np.float64).ravel()
    return flat[np.abs(flat) < _NEAR_OVERFLOW]  # a NaN is not below it


def _compute_errors(was: Values, now: Values, scales: Mapping[str, float]) -> dict[str, float]:
    """Compute the error of each output of the same shape; infinity where it became non-finite."""
    return {
        name: _compute_error(value, now[name], scales[name])
        for name, value in was.items()
        if value.shape == now[name].shape and value.dtype.kind in "biuf"
    }


def _compute_error(was: NDArray[np.generic], now: NDArray[np.generic], least: float) -> float:
    if was.dtype.kind != "f":
        return _ignore_ties(float(np.mean(was != now)) if was.size else 0.0)
    old, new = (value.astype(np.float64).ravel() for value in (was, now))
    kept = np.abs(old) < _NEAR_OVERFLOW
    old, new = old[kept], new[kept]
    if not np.isfinite(new).all():
        return float("inf")
    return compute_relative_rms(old, new, least)


def _ignore_ties(share: float) -> float:
    return share if share > _TIES else 0.0


def _find_unexplained(
    model: Model,
    beyond: Sequence[Departure],
    feeds: Mapping[str, Values],
    known: Mapping[str, Values],
    scales: Mapping[str, float],
) -> Departure | None:
    """Find the largest departure that a perturbation of the inputs does not cause as well."""
    perturbed = {
        f"{label} {nudge}": _perturb(feeds[label], nudge)
        for label in sorted({each.feed for each in beyond})
        for nudge in _NUDGES
    }
    answers = _run(model, perturbed) if perturbed else {}
    left: list[Departure] = []
    for each in beyond:
        moved = [answers[n] for nudge in _NUDGES if (n := f"{each.feed} {nudge}") in answers]
        shifts = (
            _compute_errors(known[each.feed], one, scales).get(each.output, 0.0) for one in moved
        )
        if each.error > _BEYOND_ROUNDING * max(shifts, default=0.0):
            left.append(each)
    return max(left, key=lambda each: each.error, default=None)


def _perturb(feed: Values, size: float) -> Values:
    rng = np.random.default_rng(0)
    return {
        name: (v * (1 + size * rng.choice([-1.0, 1.0], v.shape))).astype(v.dtype)  # type: ignore[operator]
        if v.dtype.kind == "f"
        else v
        for name, v in feed.items()
    }
