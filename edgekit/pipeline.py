"""build(): the whole flow of a build, top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.buildfolder import append_results, overhead_bytes, pack
from edgekit.bundle import MANIFEST, Manifest
from edgekit.compare import Comparison, compare
from edgekit.data import most_common_label
from edgekit.errors import DeviceError, EdgekitError, PassError, UserError
from edgekit.evaluate import is_models_fault
from edgekit.gate import judge
from edgekit.graphs.rewrite import QUANTISED_ALREADY
from edgekit.intake import Intake, Request, take_in
from edgekit.model import Model
from edgekit.passes.crash import build_crash, is_crash
from edgekit.places import HOST
from edgekit.profile import RuntimeName, runtime_of, weight_bits
from edgekit.progress import Tick
from edgekit.recipe import Recipe
from edgekit.results import Build, Candidate, Rejected, Verdict
from edgekit.runtimes import lite_target, obstacles
from edgekit.scalings import refuse_unscaled
from edgekit.search import Terms, choose, nearest, original, propose
from edgekit.workshop import Workshop


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a build; ``manifest`` is that of the bundle, or ``None`` if none was packed."""

    intake: Intake
    found: Build
    compared: dict[str, Comparison]  # comparison with the original, by the candidate's key
    manifest: Manifest | None
    notes: tuple[str, ...]  # caveats of the figures


def build(request: Request, tick: Tick, *, allow_failing: bool = False) -> Outcome:
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
    intake = take_in(request, tick)
    refuse_unscaled(
        intake.model,
        intake.evaluation,
        metric=intake.metric,
        output=intake.output,
        settings=intake.project.data.preprocess,
        store=intake.store,
        tick=tick,
    )
    found = explore(intake, tick)
    compared = {c.key: comparison(intake, c, found.baseline) for c in found.candidates}
    packed = found.chosen or (found.nearest if allow_failing else None)
    if packed and packed.model.beside:
        packed = None
    append_results(intake, found, compared, packed=packed)
    manifest = pack(intake, found, packed, compared, tick) if packed else None
    return Outcome(
        intake=intake,
        found=found,
        compared=compared,
        manifest=manifest,
        notes=(*_notes(intake, found), *(() if manifest else _left_over(intake))),
    )


def explore(intake: Intake, tick: Tick) -> Build:
    """Try recipes until no more are proposed; measure and judge the candidates and choose one."""
    source = HOST if intake.on is None else f"device:{intake.on}"
    with Workshop(intake, tick) as shop:
        shop.reach(source)  # fail early if the device cannot be reached
        tried = _tried(shop, [_baseline(shop)])
        judged = _measured(shop, tried, source)
        # Measurements of the device may lead the search to further recipes.
        while len(more := _tried(shop, _informed(tried, judged))) > len(tried):
            tried, judged = more, _measured(shop, more, source)
    # If a recipe was requested, the original serves only as reference.
    eligible = (intake.recipe and judged[1:]) or judged
    return Build(
        baseline=judged[0],
        candidates=tuple(judged),
        rejected=tuple(t for t in tried if isinstance(t, Rejected)),
        chosen=choose(eligible, source=source),
        nearest=nearest(eligible, source=source),
    )


def _tried(shop: Workshop, known: Sequence[Candidate | Rejected]) -> list[Candidate | Rejected]:
    """Extend the known results by recipes that the search proposes, or by the requested recipe."""
    intake, tried = shop.intake, list(known)
    baseline = next(t for t in tried if isinstance(t, Candidate))
    if intake.recipe is not None:
        return tried if tried[1:] else [*tried, _as_asked(shop, intake.recipe, baseline)]
    terms = _terms(intake)
    while recipes := propose(tried, terms):
        tried += [_made(shop, recipe, baseline) for recipe in recipes]
    return tried


def _measured(
    shop: Workshop, tried: Sequence[Candidate | Rejected], source: str
) -> list[Candidate]:
    """Time and judge the candidates, each file once; the original comes first."""
    candidates = shop.time(_distinct([t for t in tried if isinstance(t, Candidate)]), HOST)
    if source != HOST:
        candidates = _on_device(shop, candidates, source)
    return [_judged(shop.intake, c, candidates[0]) for c in candidates]


def _informed(
    tried: Sequence[Candidate | Rejected], judged: Sequence[Candidate]
) -> list[Candidate | Rejected]:
    """Update the verdict of each candidate to the latest one of its file."""
    verdicts = {c.model.digest: c.verdict for c in judged}
    return [
        replace(t, verdict=verdicts[t.model.digest]) if isinstance(t, Candidate) else t
        for t in tried
    ]


def _terms(intake: Intake) -> Terms:
    free = {name for _, _, name in intake.feeding.free_axes(intake.model.signature)}
    return Terms(
        source=intake.model.format,
        formats=intake.runtimes.formats,
        weight_bits=weight_bits(intake.profile) if "onnx" in intake.runtimes.formats else 8,
        seed=intake.seed,
        dims=tuple(sorted((n, size) for n, size in intake.dims.items() if n in free)),
        target=lite_target(intake.profile),
        remakes=bool(intake.runtimes.obstacles),
    )


def _as_asked(shop: Workshop, recipe: Recipe, baseline: Candidate) -> Candidate:
    """Make the candidate of the requested recipe; without it there is no build.

    Raises:
        UserError: The recipe does not apply to the model.
        PassError: A pass broke its contract.
    """
    made = _made(shop, recipe, baseline)
    if isinstance(made, Candidate):
        return made
    if made.broken:
        raise PassError(f"{recipe.name}: {made.reason}", hint=made.hint)
    raise UserError(f"{recipe.name}: {made.reason}")


def comparison(intake: Intake, candidate: Candidate, baseline: Candidate) -> Comparison:
    """Compare a candidate with the original on the same samples.

    The original is scored on this machine, as the device may be too small for it; the candidate's
    answers are those of the device if it was scored there.

    Raises:
        EdgekitError: One of them was not scored.
    """
    tallies = [m.tally for m in candidate.measurements if m.tally]
    reference = baseline.measured(HOST)
    if reference is None or reference.tally is None or not tallies:
        raise EdgekitError(f"{candidate.recipe.name} or the original was not scored")
    return compare(
        reference.tally,
        tallies[-1],
        margin_points=intake.limits.drop_points,
        same_model=candidate.model.digest == baseline.model.digest,
    )


def _left_over(intake: Intake) -> Iterator[str]:
    if (intake.out / MANIFEST).exists():
        yield f"{intake.out} still holds the bundle of an earlier build, which push would send"


def _notes(intake: Intake, found: Build) -> Iterator[str]:
    yield from intake.runtimes.notes
    if intake.model.origin:
        yield from intake.model.origin.notes
    splits = [s for s in (intake.evaluation, intake.calibration) if s is not None]
    yield from dict.fromkeys(note for split in splits for note in split.notes)
    if len(splits) > len({split.digest for split in splits}):
        yield "calibration and evaluation are the same samples: the accuracy of int8 is flattered"
    if any(r.reason.startswith(QUANTISED_ALREADY) for r in found.rejected):
        yield f"{QUANTISED_ALREADY}: it was not compressed further"
    yield from _of_litert(intake, found)
    host = found.baseline.measured(HOST)
    common = most_common_label(intake.evaluation)
    if host and host.tally and intake.metric != "top5" and host.tally.correct <= common:
        yield (
            f"the original is right on {host.tally.correct} of {host.tally.n} samples, no better "
            f"than always giving the most common label ({common}): check [data.preprocess] and "
            "the labels"
        )


def _of_litert(intake: Intake, found: Build) -> Iterator[str]:
    lite = [c for c in found.candidates if c.model.format == "tflite"]
    if lite and lite_target(intake.profile) == "tflite-runtime" and intake.on is None:
        yield (
            f"{intake.profile.name} runs tflite-runtime; here its files were judged with "
            f"ai-edge-litert, and speed and memory are those of this machine"
        )


def _baseline(shop: Workshop) -> Candidate:
    made = shop.make(original(shop.intake.seed))
    if isinstance(made, Rejected):
        raise EdgekitError(f"the original was rejected: {made.reason}")
    try:
        scored = shop.score(made, HOST)
        return _judged(shop.intake, scored, scored)
    except DeviceError as error:
        if error.kind != "bad_job" and not is_models_fault(error, here=True):
            raise
        # The original fails on this machine, so no device is at fault.
        message = error.message.removeprefix("local: ")
        raise UserError(f"the original fails on the data: {message}", hint=error.hint) from error


def _made(shop: Workshop, recipe: Recipe, baseline: Candidate) -> Candidate | Rejected:
    made = shop.make(recipe)
    if isinstance(made, Rejected):
        return made
    try:
        for reason in _unfit(shop.intake, made.model):
            return Rejected(recipe=recipe, reason=reason)
        return _judged(shop.intake, shop.score(made, HOST), baseline)
    except DeviceError as error:
        # The original ran on the same samples, so a rejected job is this model's fault.
        if error.kind != "bad_job" and not is_models_fault(error, here=True):
            raise
        return Rejected(
            recipe=recipe, reason=f"fails on the evaluation data: {error.message}", broken=True
        )
    except UserError:
        raise
    except EdgekitError as error:
        return shop.rejected(recipe, error)
    except (Exception, SystemExit) as error:
        if not is_crash(error):
            raise
        return shop.rejected(
            recipe, build_crash("scoring", error, steps=recipe.steps, model=made.model)
        )


def _unfit(intake: Intake, model: Model) -> Iterator[str]:
    """Yield the reasons why the device cannot run a file."""
    for obstacle in obstacles(model, intake.profile):
        yield f"{obstacle.what}; {obstacle.fix}"
    if runtime_of(model) not in intake.runtimes.names:
        yield f"a .{model.format} file, which {' and '.join(intake.runtimes.names)} do not run"


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Drop candidates whose bytes are the same as those of an earlier one."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.model.digest, candidate)
    return list(first.values())


def _on_device(shop: Workshop, candidates: Sequence[Candidate], source: str) -> list[Candidate]:
    """Score and time the candidates on the device; one that it cannot run keeps the reason."""
    own = [c for c in candidates if not _obstructed(shop.intake, c)]
    lacking = shop.lacking(source, dict.fromkeys(runtime_of(c.model) for c in own))
    scored = [_scored_there(shop, c, source, lacking) if c in own else c for c in candidates]
    able = [c for c in scored if not c.troubles and not _obstructed(shop.intake, c)]
    timed = {c.key: c for c in shop.time(able, source)} if able else {}
    return [timed.get(c.key, c) for c in scored]


def _obstructed(intake: Intake, candidate: Candidate) -> tuple[str, ...]:
    """List the reasons why the original serves as reference only and cannot be chosen."""
    if candidate.recipe.steps:
        return ()
    return tuple(
        f"{o.what}: the reference, measured on the host" for o in intake.runtimes.obstacles
    )


def _scored_there(
    shop: Workshop, candidate: Candidate, source: str, lacking: Mapping[RuntimeName, str]
) -> Candidate:
    if why := lacking.get(runtime_of(candidate.model)):
        return replace(candidate, troubles=(*candidate.troubles, why))
    try:
        return shop.score(candidate, source)
    except DeviceError as error:
        if not is_models_fault(error, here=False):
            raise
        return replace(candidate, troubles=(*candidate.troubles, error.message))


def _judged(intake: Intake, candidate: Candidate, baseline: Candidate) -> Candidate:
    compared = comparison(intake, candidate, baseline)
    # The manifest contains the verdict; its length does not depend on the figures in it.
    sized = replace(candidate, verdict=_verdict(intake, candidate, compared))
    overhead = overhead_bytes(intake, sized, compared)
    measured = (replace(m, overhead_bytes=overhead) for m in candidate.measurements)
    candidate = replace(candidate, measurements=tuple(measured))
    verdict = _verdict(intake, candidate, compared)
    reasons = (*candidate.troubles, *_unpackable(candidate), *_obstructed(intake, candidate))
    return replace(candidate, verdict=replace(verdict, reasons=reasons))


def _verdict(intake: Intake, candidate: Candidate, compared: Comparison) -> Verdict:
    host = candidate.measured(HOST)
    if host is None:
        raise EdgekitError(f"{candidate.recipe.name} was not measured")
    return judge(
        intake.limits,
        host=host,
        device=next((m for m in candidate.measurements if m.source != HOST), None),
        comparison=compared,
    )


def _unpackable(candidate: Candidate) -> Iterator[str]:
    if candidate.model.beside:
        yield "over 2 GiB, more than one file can hold (protobuf): measured here, cannot be packed"
