"""Build of several models that are combined: one after the other, judged by the answer of all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic_core import to_jsonable_python

from edgekit.bundle.pipeline_folder import SUMMARY
from edgekit.bundle.results import MIB, Check, Measurement, Verdict
from edgekit.errors import EdgekitError
from edgekit.metrics.comparison import Comparison
from edgekit.pipeline.accuracy.baseline_comparison import get_reference
from edgekit.pipeline.budget_checks import check_budget
from edgekit.pipeline.build import BuildOutcome, build_model, is_meaningless
from edgekit.pipeline.combination.inputs import (
    CombinedInputs,
    make_part_inputs,
    read_combined_inputs,
    record_originals,
)
from edgekit.pipeline.measure_targets import HOST, get_device_measurement
from edgekit.pipeline.request import Request
from edgekit.progress import Tick
from edgekit_agent.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class PipelineOutcome:
    """Result of the build of a ``[pipeline]``.

    Attributes:
        run: The function that combines the models.
        folder: Output folder; each model has a folder of its name in it.
        models: Outcome of the build of each model, by its name.
        verdict: Verdict on all models together, by the budget of the device.
        comparison: Comparison of all compressed models with all originals; ``None`` if not every
            model was built.
        notes: Caveats of the figures.
        complete: Whether all models were built; if the metric is meaningless, only the first is.
    """

    run: str
    folder: Path
    models: Mapping[str, BuildOutcome]
    verdict: Verdict
    comparison: Comparison | None
    notes: tuple[str, ...]
    complete: bool

    @property
    def checks(self) -> tuple[Check, ...]:
        """Return the checks of all models together."""
        return self.verdict.checks

    @property
    def passes(self) -> bool:
        """Return whether every model has a choice, and all together keep the budget."""
        chosen = all(outcome.choice for outcome in self.models.values())
        return self.complete and chosen and self.verdict.passes


def build_pipeline(request: Request, tick: Tick, *, allow_failing: bool = False) -> PipelineOutcome:
    """Compress the models of a ``[pipeline]`` in turn, and verify the accuracy of all together.

    Each model is built as a single one would be, but every candidate is scored with the other
    models around it: those that were built before are compressed already. All are compared with
    the combination of all originals, so that losses add up within one margin.

    Args:
        request: Request of the user.
        tick: Progress callback: stage, amount done, total amount.
        allow_failing: Pack the nearest candidate of a model if none passes.

    Raises:
        UserError: The request or one of its inputs is wrong.
        DeviceError: The device to measure on could not be reached, or failed.
    """
    given = read_combined_inputs(request, tick)
    combined, reference = given.combined, None
    built: dict[str, BuildOutcome] = {}
    record_originals(given, tick)
    for name in combined.models:  # fail before anything is built
        with _name_errors(name):
            make_part_inputs(given, name, combined, reference, tick)
    (given.out / SUMMARY).unlink(missing_ok=True)  # it describes models that are replaced now
    for name in combined.models:
        changed = None if combined.digest == given.combined.digest else reference
        named = _name_stages(tick, name)
        with _name_errors(name):
            inputs = make_part_inputs(given, name, combined, changed, named)
            outcome = build_model(inputs, named, allow_failing=allow_failing)
        built[name] = outcome
        reference = get_reference(inputs, outcome.found.baseline)
        if is_meaningless(outcome.found.baseline):
            break  # no candidate of another model could be judged
        if outcome.choice:
            combined = combined.with_model(name, outcome.choice.model)
    found = PipelineOutcome(
        run=given.table.run,
        folder=given.out,
        models=built,
        verdict=Verdict(checks=tuple(_iter_checks(given, built)), strict=given.limits.strict),
        comparison=_get_comparison(given, built),
        notes=given.notes,
        complete=len(built) == len(given.combined.models),
    )
    write_atomic(str(given.out / SUMMARY), _encode(found))
    return found


def _name_stages(tick: Tick, name: str) -> Tick:
    """Return a progress callback that names the model in front of each stage."""
    return lambda what, done, total: tick(f"{name}: {what}", done, total)


@contextmanager
def _name_errors(name: str) -> Iterator[None]:
    """Name the model in front of the message of an error."""
    try:
        yield
    except EdgekitError as error:
        error.message = f"{name}: {error.message}"
        raise


def _get_comparison(given: CombinedInputs, built: Mapping[str, BuildOutcome]) -> Comparison | None:
    """Return the comparison of the last model, which has all other compressed models around it."""
    if len(built) < len(given.combined.models):
        return None
    last = list(built.values())[-1]
    return last.compared[last.found.shown_candidate.key]


def _iter_checks(given: CombinedInputs, built: Mapping[str, BuildOutcome]) -> Iterator[Check]:
    """Yield the checks of all models together: sums of sizes, of memory, and of latencies."""
    budget = given.limits.budget
    shown = [outcome.found.shown_candidate for outcome in built.values()]
    host = [m for c in shown if (m := c.get_measurement(HOST))]
    device = [get_device_measurement(c) for c in shown]
    parts = [outcome.inputs.part for outcome in built.values()]
    calls = [part.calls if part else 1.0 for part in parts]
    p95 = _add(_get_p95_ms(m, count) for m, count in zip(device, calls, strict=True))
    rss = _add(m.peak_rss_bytes if m else None for m in device)
    often = ", ".join(f"{name} {n:.3g}" for name, n in zip(built, calls, strict=True))
    checks = (
        check_budget("model_mib", budget.model_mib, sum(m.model_bytes for m in host) / MIB),
        check_budget("transfer_mib", budget.transfer_mib, sum(m.update_bytes for m in host) / MIB),
        check_budget(
            "peak_rss_mib",
            budget.peak_rss_mib,
            rss / MIB if rss is not None else None,
            "sum of one process for each model",
        ),
        check_budget(
            "latency_p95_ms",
            budget.latency_p95_ms,
            p95,
            f"sum of the models' times, each by its runs for a sample: {often}",
        ),
    )
    yield from (check for check in checks if check)


def _get_p95_ms(measured: Measurement | None, calls: float) -> float | None:
    """Return the time of a model for one sample, in which it runs ``calls`` times."""
    times = measured.times if measured else None
    return times.p95_ms * calls if times else None


def _add(values: Iterator[float | int | None]) -> float | None:
    """Return a sum; ``None`` if a value is missing."""
    found = list(values)
    return sum(v for v in found if v is not None) if None not in found else None


def encode_pipeline(found: PipelineOutcome) -> dict[str, object]:
    """Return the result of all models together as plain data."""
    return {
        "run": found.run,
        "passes": found.passes,
        "models": {
            name: {
                "candidate": outcome.found.shown_candidate.recipe.name,
                "passes": outcome.choice is not None,
                "folder": name,
                "runs_per_sample": outcome.inputs.part.calls if outcome.inputs.part else None,
            }
            for name, outcome in found.models.items()
        },
        "checks": [asdict(check) for check in found.checks],
        "comparison": to_jsonable_python(found.comparison) if found.comparison else None,
        "notes": list(found.notes),
    }


def _encode(found: PipelineOutcome) -> bytes:
    return json.dumps(encode_pipeline(found), indent=1).encode() + b"\n"
