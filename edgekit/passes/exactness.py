"""Comparison of two models that claim to compute the same, on made-up inputs of many scales.

Without samples nobody knows which inputs matter, so the feeds reach both ends of activations,
clips and gates: faint, plain and loud noise, and loud values of one sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UserError
from edgekit.feeding import Feeding
from edgekit.graphs.outputs import Arrays, outputs
from edgekit.model import Model
from edgekit.passes.probes import Probe, narrower, probes
from edgekit_agent.samples import Samples

_FAINT, _LOUD = 0.03, 30.0
# Models above this size are slow: the two feeds that reach furthest have to do.
_LARGE_BYTES = 64 << 20
# A nudge of the inputs shows how far rounding alone can carry the outputs.
_NUDGES = (1e-6, 1e-5)
_BEYOND_ROUNDING = 30.0
# Integers that differ in so few places have met a tie.
_TIES = 0.1
# An output this much smaller than on other feeds is compared at their scale, and one smaller than
# this at this: a runtime's sigmoid is off by 3e-8 wherever it is.
_SMALL = 1e-3
# Beyond it a float32 is about to overflow, sooner in one order of sums than in another.
_NEAR_OVERFLOW = 1e30

Values = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Departure:
    """An output that differs by more than rounding explains: which, on what, by how much."""

    output: str
    feed: str
    error: float


def departure(
    before: Model, after: Model, *, limit: float, seed: int, feeding: Feeding | None = None
) -> Departure | None:
    """Return the worst output beyond ``limit``, or None where the two models agree.

    Args:
        before: the original.
        after: what a pass made of it.
        limit: bound of each float output's RMS error over its RMS, on each feed.
        seed: of the noise.
        feeding: what edgekit.toml says of the inputs.

    Raises:
        UserError: ``after`` fails where ``before`` does not.
    """
    feeding = feeding or Feeding()
    sample = accepted_feed(before, after, None, seed=seed, feeding=feeding)
    if sample is None:
        return None
    feeds = dict(_feeds(sample, seed, feeding, few=max(before.bytes, after.bytes) > _LARGE_BYTES))
    known = _answers(before, feeds)
    feeds = {what: feed for what, feed in feeds.items() if what in known}
    found = _answers(after, feeds)
    if missing := feeds.keys() - found.keys():
        raise UserError(f"the result fails on {min(missing)}")
    scales = _scales(known.values())
    beyond = [
        Departure(output=name, feed=what, error=error)
        for what in feeds
        for name, error in _errors(known[what], found[what], scales).items()
        if error > limit
    ]
    return _unexplained(before, beyond, feeds, known, scales)


def accepted_feed(
    before: Model,
    after: Model,
    samples: Samples | None,
    *,
    seed: int,
    feeding: Feeding | None = None,
) -> Arrays | None:
    """Return the first sample, or made-up feed without any, that the original takes.

    A file of fixed sizes says what both can be fed.
    """
    fed = narrower(before, after)
    tried: list[Probe] = []

    def feeds() -> Iterator[Arrays]:
        for probe in probes(fed, samples, seed=seed, feeding=feeding):
            tried.append(probe)
            yield probe.feed

    for made in outputs(before, feeds()):
        if not isinstance(made, str):
            return tried[-1].feed
    return None


def _feeds(
    sample: Arrays, seed: int, feeding: Feeding, *, few: bool
) -> Iterator[tuple[str, Values]]:
    for what, feed in _noises(sample, seed, few=few):
        yield what, feed | dict(feeding.constants)


def _noises(sample: Arrays, seed: int, *, few: bool) -> Iterator[tuple[str, Values]]:
    rng = np.random.default_rng(seed + 1)
    noise = {name: _noise(value, rng) for name, value in sample.items()}
    loud = {name: _times(value, _LOUD) for name, value in noise.items()}
    yield f"noise of {_LOUD:g}", loud
    yield "noise of 1", noise
    if few or not any(value.dtype.kind == "f" for value in sample.values()):
        return
    yield f"noise of {_FAINT:g}", {name: _times(value, _FAINT) for name, value in noise.items()}
    for sign, called in ((1, "positive"), (-1, "negative")):
        one = {n: _times(np.abs(v), sign) if v.dtype.kind == "f" else v for n, v in loud.items()}
        yield f"{called} noise of {_LOUD:g}", one


def _noise(value: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.generic]:
    """Normal floats; whole numbers of 0 and 1, which every index and mask can be."""
    if value.dtype.kind == "f":
        return rng.standard_normal(value.shape, np.float32).astype(value.dtype)
    return rng.integers(0, 2, value.shape).astype(value.dtype)


def _times(value: NDArray[Any], factor: float) -> NDArray[np.generic]:
    return (value * value.dtype.type(factor)) if value.dtype.kind == "f" else value


def _answers(model: Model, feeds: Mapping[str, Arrays]) -> dict[str, Values]:
    """Outputs by feed, without the feeds that the model refuses."""
    made = zip(feeds, outputs(model, feeds.values()), strict=True)
    return {what: answer for what, answer in made if not isinstance(answer, str)}


def _scales(answers: Iterator[Values] | Any) -> dict[str, float]:  # noqa: ANN401 - a dict's view
    """The least scale at which each float output is compared."""
    largest: dict[str, float] = {}
    for answer in answers:
        for name, value in answer.items():
            largest[name] = max(largest.get(name, 0.0), _rms(_usable(value)))
    return {name: _SMALL * max(size, 1.0) for name, size in largest.items()}


def _usable(value: NDArray[np.generic]) -> NDArray[np.float64]:
    """Finite entries away from overflow."""
    if value.dtype.kind not in "biuf":
        return np.zeros(0)
    flat = value.astype(np.float64).ravel()
    return flat[np.abs(flat) < _NEAR_OVERFLOW]  # a NaN is not below it


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _errors(was: Values, now: Values, scales: Mapping[str, float]) -> dict[str, float]:
    """How far each output of the same shape is off; infinity where it is not finite any more."""
    return {
        name: _error(value, now[name], scales[name])
        for name, value in was.items()
        if value.shape == now[name].shape and value.dtype.kind in "biuf"
    }


def _error(was: NDArray[np.generic], now: NDArray[np.generic], least: float) -> float:
    if was.dtype.kind != "f":
        return _tied(float(np.mean(was != now)) if was.size else 0.0)
    old, new = (value.astype(np.float64).ravel() for value in (was, now))
    kept = np.abs(old) < _NEAR_OVERFLOW
    old, new = old[kept], new[kept]
    if not np.isfinite(new).all():
        return float("inf")
    return _rms(new - old) / max(_rms(old), least)


def _tied(share: float) -> float:
    return share if share > _TIES else 0.0


def _unexplained(
    model: Model,
    beyond: Sequence[Departure],
    feeds: Mapping[str, Values],
    known: Mapping[str, Values],
    scales: Mapping[str, float],
) -> Departure | None:
    """The worst departure that a nudge of the inputs does not bring about in the original."""
    nudged = {
        f"{what} {nudge}": _nudged(feeds[what], nudge)
        for what in sorted({each.feed for each in beyond})
        for nudge in _NUDGES
    }
    answers = _answers(model, nudged) if nudged else {}
    left: list[Departure] = []
    for each in beyond:
        moved = [answers[n] for nudge in _NUDGES if (n := f"{each.feed} {nudge}") in answers]
        shifts = (_errors(known[each.feed], one, scales).get(each.output, 0.0) for one in moved)
        if each.error > _BEYOND_ROUNDING * max(shifts, default=0.0):
            left.append(each)
    return max(left, key=lambda each: each.error, default=None)


def _nudged(feed: Values, size: float) -> Values:
    rng = np.random.default_rng(0)
    return {
        name: (v * (1 + size * rng.choice([-1.0, 1.0], v.shape))).astype(v.dtype)  # type: ignore[operator]
        if v.dtype.kind == "f"
        else v
        for name, v in feed.items()
    }
