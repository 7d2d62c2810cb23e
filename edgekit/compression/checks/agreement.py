"""Agreement of a compressed model's outputs with those of the original."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.checks.contract_inputs import (
    Probe,
    choose_narrower,
    estimate_probe_count,
    iter_probes,
)
from edgekit.data.input_settings import Feeding
from edgekit.errors import UserError
from edgekit.model import Model, TensorSpec
from edgekit.onnx_graph.output_differences import (
    LEAST_FREEDOMS,
    SquaredErrors,
    compute_correlation,
    compute_squared_error,
)
from edgekit.onnx_graph.runs.model_outputs import iter_outputs
from edgekit.progress import Tick, ignore_progress
from edgekit_agent.samples import Samples

# Number of entries of an output that are compared; shape and finiteness are checked on all.
_PICKED = 16384
# RMS of an output that is zero in the original and differs by rounding alone.
_ROUNDING = 1e-5
# From this correlation on, an output follows the original's.
_FOLLOWS = 0.5


class Disagreement(Exception):
    """Outputs that no correct result of any pass has; the text says which, and on which input."""


class InfiniteOutput(Disagreement):
    """Entries that are not finite in an output that is not finite in the original either.

    Such an output depends on the last digits of its inputs, as log(relu(x)) does.
    """


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Comparison of a result's outputs with the original's.

    ``relative_errors`` holds the RMS difference of each float output over its own RMS, the worst
    output first. ``correlation`` holds that of each float output over the samples, with its mean
    over the samples removed, where the original's output varies. ``equal`` is the share of equal
    entries of integer outputs. ``stuck`` are integer outputs that are the same on every sample
    while the original's are not. ``lost`` are float outputs to which their own mean would be as
    near. ``samples`` is the number of real samples compared. If some of them were held out from
    the pass, ``unseen`` is their number, the errors are of these alone, and ``seen_errors`` are
    those of the others.
    """

    samples: int
    relative_errors: dict[str, float]
    correlation: dict[str, float]
    equal: float | None
    stuck: tuple[str, ...]
    lost: tuple[str, ...] = ()
    unseen: int = 0
    seen_errors: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, float] | None:
        """Return the output with the largest relative error; ``None`` without float outputs."""
        return next(iter(self.relative_errors.items()), None)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """Output of one probe: some of its entries, one row for each real sample."""

    shape: tuple[int, ...]
    rows: NDArray[np.float64]
    finite: NDArray[np.bool_] | None  # None: all are finite


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Entries of one output on the same samples, of the original and of the result."""

    was: NDArray[np.float64]
    now: NDArray[np.float64]
    judges: bool


def compare_models(
    before: Model,
    after: Model,
    samples: Samples | Sequence[Samples] | None,
    *,
    unseen: Sequence[Samples] = (),
    seed: int,
    feeding: Feeding | None = None,
    tick: Tick = ignore_progress,
) -> Agreement:
    """Run both models on the same probes, one model after the other, and compare the outputs.

    Args:
        before: the original.
        after: the result of a pass.
        samples: calibration samples; without any, inputs are made up.
        unseen: samples that the pass was not given.
        seed: seed of the made-up inputs.
        feeding: which inputs hold samples; ``None`` = all, along their first axis.
        tick: called with the number of probes that have run.

    Raises:
        Disagreement: ``after`` fails, is not finite or has another shape where ``before`` does
            not.
        InfiniteOutput: the same for an output of ``before`` that is not finite everywhere.
        UserError: ``before`` fails on the samples.
    """
    # The file with the more fixed sizes decides the shapes that both can be fed.
    fed = choose_narrower(before, after)
    expected = estimate_probe_count(fed, samples, unseen)

    def ran(model: Model) -> Iterator[tuple[Probe, dict[str, NDArray[np.generic]] | str]]:
        return _run_probes(
            model, iter_probes(fed, samples, unseen=unseen, seed=seed, feeding=feeding)
        )

    tried: list[dict[str, _Answer] | None] = []
    for probe, made in ran(before):
        tick("checking", len(tried), 2 * expected)
        tried.append(_read_answers(before, probe, made))
    answers = [known.items() for known in tried if known is not None]
    infinite = {name for known in answers for name, its in known if its.finite is not None}
    tally = _Tally(before=before, split=bool(unseen), infinite=infinite)
    try:
        pairs = zip(tried, ran(after), strict=True)
        for number, (known, (probe, made)) in enumerate(pairs, start=len(tried)):
            tick("checking", number, 2 * len(tried))
            if known is None:
                continue  # a variant that the original refuses
            if isinstance(made, str):
                raise Disagreement(f"the compressed model fails on {probe.what}: {made}")
            tally.add(probe, known, {n: _extract_answer(v, probe) for n, v in made.items()})
    except UserError as error:
        raise Disagreement(f"the compressed model does not run: {error.message}") from error
    return tally.total()


def _run_probes(
    model: Model, found: Iterator[Probe]
) -> Iterator[tuple[Probe, dict[str, NDArray[np.generic]] | str]]:
    current: list[Probe] = []

    def feeds() -> Iterator[dict[str, NDArray[np.generic]]]:
        for probe in found:
            current[:] = [probe]
            yield dict(probe.feed)

    for made in iter_outputs(model, feeds()):
        yield current[0], made


def _read_answers(
    model: Model, probe: Probe, made: dict[str, NDArray[np.generic]] | str
) -> dict[str, _Answer] | None:
    """Return the original's answers; ``None`` for a made-up input that the original refuses."""
    if not isinstance(made, str):
        return {name: _extract_answer(value, probe) for name, value in made.items()}
    if probe.rows:
        raise UserError(f"{model.path}: the model fails on {probe.what}: {made}")
    return None


def _extract_answer(value: NDArray[np.generic], probe: Probe) -> _Answer:
    kind = value.dtype.kind
    if kind not in "biuf":
        return _Answer(shape=value.shape, rows=np.zeros((0, 0)), finite=None)
    by_sample = probe.rows > 0 and value.shape[:1] == (probe.batch,)
    flat = value.reshape(probe.batch, -1)[: probe.rows] if by_sample else value.reshape(1, -1)
    if flat.shape[1] > _PICKED:
        where = np.random.default_rng(0).integers(0, flat.shape[1], _PICKED)
        flat = flat[:, np.sort(where)]
    finite = np.isfinite(value) if kind == "f" else None
    whole = finite is None or bool(finite.all())
    return _Answer(
        shape=value.shape, rows=flat.astype(np.float64), finite=None if whole else finite
    )


@dataclass(kw_only=True)
class _Errors:
    """Squared errors and sizes of each float output, with the number of its finite entries."""

    sums: SquaredErrors[str] = field(default_factory=SquaredErrors)
    entries: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, was: NDArray[np.float64], now: NDArray[np.float64]) -> None:
        self.entries[name] += int(np.isfinite(was).sum())
        self.sums.add(name, *compute_squared_error(was, now))

    def compute_relative(self) -> dict[str, float]:
        """Return the relative error of each float output, the worst first.

        It is 1 where an output that is zero in the original differs by more than rounding.
        """
        ratios = {name: self._compute_ratio(name) for name in self.entries}
        return dict(sorted(ratios.items(), key=lambda pair: -pair[1]))

    def _compute_ratio(self, name: str) -> float:
        error, size = self.sums.error[name], self.sums.size[name]
        if size:
            return math.sqrt(error / size)
        return 1.0 if error > self.entries[name] * _ROUNDING**2 else 0.0


@dataclass(kw_only=True)
class _Tally:
    """Sums over the probes.

    ``split``: unseen samples are judged apart from those that the pass saw. ``infinite``: outputs
    of ``before`` with entries that are not finite.
    """

    before: Model
    split: bool
    infinite: set[str]
    samples: int = 0
    unseen: int = 0
    judged: _Errors = field(default_factory=_Errors)
    seen: _Errors = field(default_factory=_Errors)
    equal: int = 0
    compared: int = 0
    rows: dict[str, list[_Pair]] = field(default_factory=dict)

    def add(self, probe: Probe, old: dict[str, _Answer], new: dict[str, _Answer]) -> None:
        self.samples += probe.rows
        self.unseen += probe.rows if self.split and probe.judges else 0
        for spec in self.before.signature.outputs:
            was, now = old[spec.name], new[spec.name]
            where = f"output {spec.name} of {probe.what}"
            if was.shape != now.shape:
                if not self._has_data_dependent_shape(spec, was.shape, now.shape):
                    raise Disagreement(f"{where} is {list(now.shape)}, was {list(was.shape)}")
                continue
            if not _is_as_finite(was, now):
                kind = InfiniteOutput if spec.name in self.infinite else Disagreement
                raise kind(f"{where} is not finite, but the original's is")
            if _is_float(spec):
                (self.judged if probe.judges else self.seen).add(spec.name, was.rows, now.rows)
            else:
                self.equal += int((was.rows == now.rows).sum())
                self.compared += was.rows.size
            if probe.rows:
                pair = _Pair(was=was.rows, now=now.rows, judges=probe.judges)
                self.rows.setdefault(spec.name, []).append(pair)

    def _has_data_dependent_shape(
        self, spec: TensorSpec, was: tuple[int, ...], now: tuple[int, ...]
    ) -> bool:
        """Return whether only dimensions differ that no input has, such as a number of boxes."""
        if not len(was) == len(now) == len(spec.shape):
            return False
        fed = {d for i in self.before.signature.inputs for d in i.shape if isinstance(d, str)}
        differing = (d for d, a, b in zip(spec.shape, was, now, strict=True) if a != b)
        return all(not isinstance(d, int) and d not in fed for d in differing)

    def total(self) -> Agreement:
        floats = {s.name for s in self.before.signature.outputs if _is_float(s)}
        pairs = {name: _stack_samples(rows) for name, rows in self.rows.items()}
        known = {name: pair for name, pair in pairs.items() if pair is not None}
        followed = {n: compute_correlation(*pair) for n, pair in known.items() if n in floats}
        return Agreement(
            samples=self.samples,
            relative_errors=self.judged.compute_relative(),
            correlation={name: r for name, r in followed.items() if r is not None},
            equal=self.equal / self.compared if self.compared else None,
            stuck=tuple(n for n, pair in known.items() if n not in floats and _is_stuck(*pair)),
            lost=tuple(n for n in known if n in floats and _is_lost(self.rows[n], followed[n])),
            unseen=self.unseen,
            seen_errors=self.seen.compute_relative(),
        )


def _is_float(spec: TensorSpec) -> bool:
    return np.dtype(spec.dtype).kind == "f"


def _is_as_finite(was: _Answer, now: _Answer) -> bool:
    if now.finite is None:
        return True
    return was.finite is not None and bool((now.finite | ~was.finite).all())


def _stack_samples(
    pairs: Sequence[_Pair],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Concatenate all samples of both models; ``None`` where the samples differ in size."""
    if len({pair.was.shape[1] for pair in pairs}) > 1:
        return None
    return np.concatenate([p.was for p in pairs]), np.concatenate([p.now for p in pairs])


def _is_lost(pairs: Sequence[_Pair], correlation: float | None) -> bool:
    """Return whether the mean of an output over the samples is nearer to it than the result.

    An output that still correlates with the original's is not lost, whatever its size.
    """
    if correlation is None or correlation > _FOLLOWS:
        return False
    whole = np.concatenate([pair.was for pair in pairs])
    finite = np.isfinite(whole).all(axis=0)
    mean = whole[:, finite].mean(axis=0)
    left = spread = 0.0
    for was, now in ((p.was[:, finite], p.now[:, finite]) for p in pairs if p.judges):
        left += float(np.square(now - was).sum())
        spread += float(np.square(was - mean).sum())
    return left >= spread


def _is_stuck(old: NDArray[np.float64], new: NDArray[np.float64]) -> bool:
    return (
        len(old) >= LEAST_FREEDOMS
        and len(np.unique(old, axis=0)) > 2
        and bool((new == new[0]).all())
    )
