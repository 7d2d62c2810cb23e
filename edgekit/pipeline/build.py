"""build(): the whole flow of a build, top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.bundle.golden_samples import NoGoldenSamples
from edgekit.bundle.manifest import REPORT, Manifest
from edgekit.bundle.results import Build, Candidate, Rejection, Verdict
from edgekit.compatibility.runtimes import find_obstacles
from edgekit.compression.checks.crash_reports import build_crash, is_crash
from edgekit.compression.pass_specs import TENSORFLOW
from edgekit.config.profile import RuntimeName, get_runtime
from edgekit.errors import DeviceError, EdgekitError, PassError, UserError
from edgekit.metrics.comparison import Comparison
from edgekit.metrics.registry import get_metric
from edgekit.model import Model
from edgekit.pipeline.accuracy.baseline_comparison import compare_all, compare_with_original
from edgekit.pipeline.budget_checks import judge
from edgekit.pipeline.build_notes import iter_notes, iter_stale_notes
from edgekit.pipeline.bundle_writer import estimate_overhead_bytes, pack_bundle
from edgekit.pipeline.examples.collection import collect_examples
from edgekit.pipeline.examples.records import write_examples
from edgekit.pipeline.measure_targets import HOST, get_device_measurement
from edgekit.pipeline.pixel_scaling import refuse_unscaled
from edgekit.pipeline.recipe_runner import BuildRunner
from edgekit.pipeline.request import BuildInputs, Request, read_build_inputs
from edgekit.pipeline.results_writer import Compared, append_results
from edgekit.pipeline.search.build_terms import build_terms
from edgekit.pipeline.search.policy import (
    choose_candidate,
    find_nearest,
    make_original,
    propose,
)
from edgekit.pipeline.search.recovery import propose_recovery
from edgekit.pipeline.timing import is_models_fault
from edgekit.pipeline.tool_versions import is_installed
from edgekit.progress import Tick
from edgekit.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class BuildOutcome:
    """Result of a build.

    Attributes:
        inputs: The checked inputs: model, data, device and limits.
        found: The candidates and the search's choice.
        compared: Comparison with the original, by the candidate's key; ``None`` where the accuracy
            was not measured.
        manifest: Manifest of the bundle; ``None`` if none was packed.
        notes: Caveats of the figures.
    """

    inputs: BuildInputs
    found: Build
    compared: Compared
    manifest: Manifest | None
    notes: tuple[str, ...]

    @property
    def choice(self) -> Candidate | None:
        """Return the candidate that passed every check and was chosen, if there is one."""
        return self.found.chosen

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Return all candidates, the original first."""
        return self.found.candidates

    @property
    def folder(self) -> Path:
        """Return the output folder, which is also the bundle."""
        return self.inputs.out

    @property
    def report(self) -> Path:
        """Return the path of the HTML report."""
        return self.inputs.out / REPORT


def build(request: Request, tick: Tick, *, allow_failing: bool = False) -> BuildOutcome:
    """Compress a model for a device, verify its accuracy against the original, and pack it.

    Recipes are tried on the host. Every candidate is scored against the original, timed in turn
    with the others, and also measured on a device if the request names one. Earlier candidates and
    measurements are reused.

    Args:
        request: Request of the user.
        tick: Progress callback: stage, amount done, total amount.
        allow_failing: Pack the nearest candidate if none passes.

    Raises:
        UserError: The request or one of its inputs is wrong.
        DeviceError: The device to measure on could not be reached, or failed.
    """
    return build_model(read_build_inputs(request, tick), tick, allow_failing=allow_failing)


def build_model(inputs: BuildInputs, tick: Tick, *, allow_failing: bool) -> BuildOutcome:
    """Compress the model of checked inputs, verify its accuracy, and pack it.

    Args:
        inputs: The checked inputs.
        tick: Progress callback: stage, amount done, total amount.
        allow_failing: Pack the nearest candidate if none passes.

    Raises:
        UserError: The model fails on its samples, or the requested recipe does not apply.
        DeviceError: The device to measure on could not be reached, or failed.
    """
    if inputs.scoring is not None and inputs.part is None:
        refuse_unscaled(
            inputs.model,
            inputs.evaluation,
            scoring=inputs.scoring,
            settings=inputs.project.data.preprocess,
            store=inputs.store,
            tick=tick,
        )
    found = explore(inputs, tick)
    compared = compare_all(inputs, found)
    packed = found.chosen or (found.nearest if allow_failing else None)
    if packed and packed.model.beside:
        packed = None
    identity = append_results(inputs, found, compared, packed=packed)
    manifest = pack_bundle(inputs, found, packed, compared, tick) if packed else None
    write_examples(inputs.out, collect_examples(inputs, found, identity, tick))
    return BuildOutcome(
        inputs=inputs,
        found=found,
        compared=compared,
        manifest=manifest,
        notes=(*iter_notes(inputs, found), *(() if manifest else iter_stale_notes(inputs))),
    )


def explore(inputs: BuildInputs, tick: Tick) -> Build:
    """Try recipes until no more are proposed; measure and judge the candidates and choose one."""
    source = HOST if inputs.on is None else f"device:{inputs.on}"
    with BuildRunner(inputs, tick) as runner:
        runner.check_reachable(source)  # fail early if the device cannot be reached
        tried = _try_recipes(runner, [_make_baseline(runner)], measured=False)
        judged = _measure_candidates(runner, tried, source)
        # Measurements of the device may lead the search to further recipes.
        while len(more := _try_again(runner, tried, judged)) > len(tried):
            tried, judged = more, _measure_candidates(runner, more, source)
    # If a recipe was requested, the original serves only as reference.
    eligible = (inputs.recipe and judged[1:]) or judged
    return Build(
        baseline=judged[0],
        candidates=tuple(judged),
        rejected=tuple(t for t in tried if isinstance(t, Rejection)),
        chosen=choose_candidate(eligible, source=source),
        nearest=find_nearest(eligible, source=source),
    )


def _try_recipes(
    runner: BuildRunner, known: Sequence[Candidate | Rejection], *, measured: bool
) -> list[Candidate | Rejection]:
    """Extend the known results by recipes that the search proposes, or by the requested recipe.

    Candidates learn only if all others were measured and none is left to try.
    """
    inputs, tried = runner.inputs, list(known)
    baseline = next(t for t in tried if isinstance(t, Candidate))
    if is_meaningless(baseline):
        return tried  # no candidate can be judged
    if inputs.recipe is not None:
        return tried if tried[1:] else [*tried, _make_requested(runner, inputs.recipe, baseline)]
    terms = build_terms(inputs)
    while recipes := propose(tried, terms):
        tried += [_make_candidate(runner, recipe, baseline) for recipe in recipes]
    if measured and len(tried) == len(known) and is_installed(TENSORFLOW):
        recipes = propose_recovery(tried, terms)
        tried += [_make_candidate(runner, recipe, baseline) for recipe in recipes]
    return tried


def _try_again(
    runner: BuildRunner, tried: Sequence[Candidate | Rejection], judged: Sequence[Candidate]
) -> list[Candidate | Rejection]:
    """Extend the results by further recipes, once all candidates were measured."""
    return _try_recipes(runner, _update_verdicts(tried, judged), measured=True)


def _measure_candidates(
    runner: BuildRunner, tried: Sequence[Candidate | Rejection], source: str
) -> list[Candidate]:
    """Time and judge the candidates, each file once; the original comes first.

    Nothing is timed if the metric is meaningless, as no candidate can be chosen.
    """
    candidates = _drop_duplicates([t for t in tried if isinstance(t, Candidate)])
    if is_meaningless(candidates[0]):
        return candidates
    candidates = runner.time(candidates, HOST)
    if source != HOST:
        candidates = _measure_on_device(runner, candidates, source)
    return [_judge_candidate(runner.inputs, c, candidates[0]) for c in candidates]


def is_meaningless(baseline: Candidate) -> bool:
    """Return whether the value of the original is meaningless by one of the metrics."""
    return bool(baseline.verdict and baseline.verdict.is_meaningless)


def _update_verdicts(
    tried: Sequence[Candidate | Rejection], judged: Sequence[Candidate]
) -> list[Candidate | Rejection]:
    """Update the verdict of each candidate to the latest one of its file."""
    verdicts = {c.model.digest: c.verdict for c in judged}
    return [
        replace(t, verdict=verdicts[t.model.digest]) if isinstance(t, Candidate) else t
        for t in tried
    ]


def _make_requested(runner: BuildRunner, recipe: Recipe, baseline: Candidate) -> Candidate:
    """Make the candidate of the requested recipe; without it there is no build.

    Raises:
        UserError: The recipe does not apply to the model.
        PassError: A pass broke its contract.
    """
    made = _make_candidate(runner, recipe, baseline)
    if isinstance(made, Candidate):
        return made
    if made.broken:
        raise PassError(f"{recipe.name}: {made.reason}", hint=made.hint)
    raise UserError(f"{recipe.name}: {made.reason}")


def _make_baseline(runner: BuildRunner) -> Candidate:
    made = runner.make(make_original(runner.inputs.seed))
    if isinstance(made, Rejection):
        raise EdgekitError(f"the original cannot be measured: {made.reason}")
    try:
        scored = runner.score(made, HOST)
        return _judge_candidate(runner.inputs, scored, scored)
    except DeviceError as error:
        if error.kind != "bad_job" and not is_models_fault(error, here=True):
            raise
        # The original fails on this machine, so no device is at fault.
        message = error.message.removeprefix("local: ")
        raise UserError(
            f"the original fails on {runner.inputs.evaluation.source}: {message}",
            hint=_find_text_hint(runner.inputs) or error.hint,
        ) from error


def _find_text_hint(inputs: BuildInputs) -> str:
    """Return what to do with targets that are texts, if the metric takes none; else nothing."""
    takes_none = inputs.scoring is not None and not any(
        metric.takes_texts or metric.code for metric in map(get_metric, inputs.scoring.names)
    )
    if not (takes_none and inputs.evaluation.has_text_target):
        return ""
    return (
        f"the targets are texts: for metric {inputs.metric}, number the classes 0, 1, ...; texts "
        "that the model recognizes need a metric of texts, such as cer"
    )


def _make_candidate(
    runner: BuildRunner, recipe: Recipe, baseline: Candidate
) -> Candidate | Rejection:
    made = runner.make(recipe)
    if isinstance(made, Rejection):
        return made
    try:
        for reason in _iter_misfits(runner.inputs, made.model):
            return Rejection(recipe=recipe, reason=reason)
        return _judge_candidate(runner.inputs, runner.score(made, HOST), baseline)
    except DeviceError as error:
        # The original ran on the same samples, so a rejected job is this model's fault.
        if error.kind != "bad_job" and not is_models_fault(error, here=True):
            raise
        is_function = runner.inputs.part is not None and error.kind == "bad_job"
        return Rejection(
            recipe=recipe,
            reason=f"fails on the evaluation data: {error.message}",
            broken=not is_function,  # the function of a [pipeline] is not the pass's fault
        )
    except NoGoldenSamples as error:
        return Rejection(recipe=recipe, reason=error.message, hint=error.hint)
    except UserError:
        raise
    except EdgekitError as error:
        return runner.reject(recipe, error)
    except (Exception, SystemExit) as error:
        if not is_crash(error):
            raise
        return runner.reject(
            recipe, build_crash("scoring", error, steps=recipe.steps, model=made.model)
        )


def _iter_misfits(inputs: BuildInputs, model: Model) -> Iterator[str]:
    """Yield the reasons why the device cannot run a file."""
    for obstacle in find_obstacles(model, inputs.profile):
        yield f"{obstacle.what}; {obstacle.fix}"
    if get_runtime(model) not in inputs.runtimes.names:
        names = inputs.runtimes.names
        verb = "does" if len(names) == 1 else "do"
        yield f"a .{model.format} file, which {' and '.join(names)} {verb} not run"


def _drop_duplicates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Drop candidates whose bytes are the same as those of an earlier one."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.model.digest, candidate)
    return list(first.values())


def _measure_on_device(
    runner: BuildRunner, candidates: Sequence[Candidate], source: str
) -> list[Candidate]:
    """Score and time the candidates on the device; one that it cannot run keeps the reason."""
    own = [c for c in candidates if not _list_obstacles(runner.inputs, c)]
    lacking = runner.find_missing_runtimes(source, dict.fromkeys(get_runtime(c.model) for c in own))
    scored = [_score_on_device(runner, c, source, lacking) if c in own else c for c in candidates]
    able = [c for c in scored if not c.troubles and not _list_obstacles(runner.inputs, c)]
    timed = {c.key: c for c in runner.time(able, source)} if able else {}
    return [timed.get(c.key, c) for c in scored]


def _list_obstacles(inputs: BuildInputs, candidate: Candidate) -> tuple[str, ...]:
    """List the reasons why the original serves as reference only and cannot be chosen."""
    if candidate.recipe.steps:
        return ()
    return tuple(
        f"{o.what}; used as reference only, measured on the host" for o in inputs.runtimes.obstacles
    )


def _score_on_device(
    runner: BuildRunner, candidate: Candidate, source: str, lacking: Mapping[RuntimeName, str]
) -> Candidate:
    if why := lacking.get(get_runtime(candidate.model)):
        return replace(candidate, troubles=(*candidate.troubles, why))
    try:
        return runner.score(candidate, source)
    except DeviceError as error:
        if not is_models_fault(error, here=False):
            raise
        return replace(candidate, troubles=(*candidate.troubles, error.message))


def _judge_candidate(inputs: BuildInputs, candidate: Candidate, baseline: Candidate) -> Candidate:
    compared = compare_with_original(inputs, candidate, baseline)
    # The manifest contains the verdict; its length does not depend on the figures in it.
    sized = replace(candidate, verdict=_compute_verdict(inputs, candidate, compared))
    overhead = estimate_overhead_bytes(inputs, sized, compared)
    measured = (replace(m, overhead_bytes=overhead) for m in candidate.measurements)
    candidate = replace(candidate, measurements=tuple(measured))
    verdict = _compute_verdict(inputs, candidate, compared)
    reasons = (
        *candidate.troubles,
        *_iter_packing_obstacles(candidate),
        *_list_obstacles(inputs, candidate),
    )
    return replace(candidate, verdict=replace(verdict, reasons=reasons))


def _compute_verdict(
    inputs: BuildInputs, candidate: Candidate, compared: Comparison | None
) -> Verdict:
    host = candidate.get_measurement(HOST)
    if host is None:
        raise EdgekitError(f"{candidate.recipe.name} was not measured")
    return judge(
        inputs.limits,
        host=host,
        device=get_device_measurement(candidate),
        comparison=compared,
    )


def _iter_packing_obstacles(candidate: Candidate) -> Iterator[str]:
    if candidate.model.beside:
        yield "larger than 2 GiB, the limit of one protobuf file: measured, but cannot be packed"
