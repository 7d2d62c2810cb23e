"""Run a step and check its result against the promises of the pass."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgekit.compression.all_passes import find_pass, get_pass
from edgekit.compression.checks.agreement import (
    Agreement,
    Disagreement,
    InfiniteOutput,
    compare_models,
)
from edgekit.compression.checks.contracts import (
    check_agreement,
    check_cost,
    check_signature,
    check_store,
    get_promise,
)
from edgekit.compression.checks.crash_reports import build_crash, is_crash
from edgekit.compression.checks.exactness import find_departure, find_noise_outputs
from edgekit.compression.checks.held_out_samples import hold_out_samples
from edgekit.compression.checks.outliers import find_outlier
from edgekit.compression.checks.output_notes import describe_losses
from edgekit.compression.fixed_sizes import has_fitting_samples
from edgekit.compression.interruption import keep_interruption
from edgekit.compression.pass_specs import PassFunction, PassSpec, Promise, Work
from edgekit.conversion.model_facts import compute_cost, read_storage_stats
from edgekit.conversion.open_model import read_model
from edgekit.errors import PassError, PassRefused, UserError
from edgekit.model import Model, Signature
from edgekit.onnx_graph.io import load_structure
from edgekit.onnx_graph.runs.activations import get_batch_size
from edgekit.onnx_graph.states import read_states
from edgekit.onnx_graph.weight_stats import StorageStats
from edgekit.recipe import Step
from edgekit_agent.samples import Samples


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Result of a step; ``compare_models`` is ``None`` where the step changed nothing.

    ``notes`` are facts for the user, such as layers that were left unchanged.
    """

    model: Model
    agreement: Agreement | None
    notes: tuple[str, ...] = ()


def run_step(step: Step, model: Model, work: Work) -> Model:
    """Run a step and return the checked model; raises as ``run_checked``."""
    return run_checked(step, model, work).model


def run_checked(step: Step, model: Model, work: Work) -> StepResult:
    """Run a step and check the file that it returns.

    The checks are those of ``Promise``. Outputs are compared on calibration samples, some of which
    are held out from a pass that fits to them. Without samples, outputs are compared on made-up
    inputs, of many scales where the pass claims to compute the same. Only one of the two models is
    in memory at a time.

    Args:
        step: the pass with its settings.
        model: the model to change.
        work: scratch folder, samples, and channels to report by.

    Raises:
        PassRefused: the pass does not apply to this model, or the settings remove so much that
            the outputs are lost.
        PassError: the result breaks a promise; the text names the pass, the promise and the
            finding.
        PassCrash: the pass, or the check of its result, ended in an unexpected exception.
        UserError: the model fails on the samples.
    """
    try:
        with keep_interruption():
            return _run_checked(step, model, work)
    except (Exception, SystemExit) as error:
        if not is_crash(error):
            raise
        spec = find_pass(step.name)
        plugin = spec.plugin if spec else ""
        raise build_crash(step.name, error, steps=[step], model=model, plugin=plugin) from error


def make_missing_original_error(step: Step) -> PassRefused:
    """Return the error for a step that reads the original model and has none."""
    return PassRefused(
        f"{step.name} needs the original model as well as the compressed one",
        hint="use edgekit distil ORIGINAL --student MODEL -o OUT",
    )


def _run_checked(step: Step, model: Model, work: Work) -> StepResult:
    spec = get_pass(step.name)
    if model.format not in spec.formats:
        raise PassRefused(
            f"{step.name} processes {' or '.join(spec.formats)} models, not {model.format}",
            hint="convert it first: edgekit apply to-onnx" if model.format == "tflite" else "",
        )
    if spec.needs_calibration and work.calibration is None:
        raise PassRefused(
            f"{step.name} needs calibration data",
            hint="give --data CALIB, or [data] calibration in edgekit.toml",
        )
    if spec.needs_original and work.original is None:
        raise make_missing_original_error(step)
    if spec.needs_calibration and work.calibration is not None:
        batch = get_batch_size(work.calibration, model.signature)
        work = hold_out_samples(
            work, least=spec.holds_out_from, batch=batch, in_time=bool(work.feeding.states)
        )
    path = _load_function(spec)(model, step.settings, work)
    try:
        result = read_model(path)
    except UserError as error:
        raise PassError(f"{step.name}: the result does not load: {error.message}") from error
    if result.digest == model.digest:
        if not spec.promise.may_find_nothing:
            raise PassError(f"{step.name}: the output file is identical to the input")
        return StepResult(model=result, agreement=None, notes=tuple(work.notes))
    work.progress("checking", 0, 0)
    for broken in check_signature(
        _get_expected_signature(model, result), _drop_states(model, result)
    ):
        raise PassError(f"{step.name}: {broken}")
    stored = read_storage_stats(model.path)
    promise = get_promise(spec, step.settings, stored)
    for broken in _iter_broken_promises(promise, model, stored, result, work):
        raise PassError(f"{step.name}: {broken}")
    reference = (spec.needs_original and work.original) or model
    found = _compare_outputs(step, promise, reference, result, work)
    return StepResult(model=result, agreement=found, notes=tuple(work.notes))


def _compare_outputs(
    step: Step, promise: Promise, before: Model, after: Model, work: Work
) -> Agreement:
    """Compare the outputs of both models, and check the promise on the result."""
    samples: Sequence[Samples] | None = work.fitting or None
    if before.format != after.format and not has_fitting_samples(after, work.calibration):
        samples = None
        work.note("compared on random inputs, as the samples have other sizes than the file")
    try:
        found = compare_models(
            before,
            after,
            samples,
            unseen=work.unseen,
            seed=work.seed,
            feeding=work.feeding,
            tick=work.progress,
        )
    except InfiniteOutput as error:
        if promise.exact:
            raise PassError(f"{step.name}: {error}") from error
        raise PassRefused(
            f"{step.name}: {error}; the output also has infinite values elsewhere, so rounding "
            "decides where",
            hint="limit the values that the output is computed from, for example with a Clip "
            "before a Log",
        ) from error
    except Disagreement as error:
        raise PassError(f"{step.name}: {error}") from error
    spec = get_pass(step.name)
    judged = _drop_noise_outputs(promise, found, before, samples, work)
    for broken in check_agreement(promise, judged, asked=bool(spec.asks)):
        outlier = None if promise.exact else find_outlier(samples or ())
        if outlier is not None:
            raise PassRefused(f"{step.name}: {outlier}: {broken}", hint="remove or fix this sample")
        raise _build_loss_error(step, spec, broken)
    for note in describe_losses(spec, judged):
        work.note(note)
    if promise.exact and samples is None:
        _check_exactness(step, promise, before, after, work)
    return found


def _drop_noise_outputs(
    promise: Promise,
    found: Agreement,
    before: Model,
    samples: Sequence[Samples] | None,
    work: Work,
) -> Agreement:
    """Drop the outputs that hold rounding alone from an exact comparison, and note their names."""
    errors = {n: e for n, e in found.relative_errors.items() if e > promise.max_relative_error}
    if not (promise.exact and errors and samples):
        return found
    noise = find_noise_outputs(before, samples[0], errors, seed=work.seed)
    for name in sorted(noise):
        work.note(
            f"output {name} consists of rounding errors: changing the last digits of the inputs "
            f"changes it as much as the pass does (relative error {errors[name]:.2g}), so it was "
            "not compared"
        )
    kept = {n: e for n, e in found.relative_errors.items() if n not in noise}
    followed = {n: r for n, r in found.correlation.items() if n not in noise}
    return replace(found, relative_errors=kept, correlation=followed)


def _check_exactness(step: Step, promise: Promise, before: Model, after: Model, work: Work) -> None:
    """Check on made-up inputs of many scales that both models compute the same."""
    try:
        found = find_departure(
            before,
            after,
            limit=promise.max_relative_error,
            seed=work.seed,
            feeding=work.feeding,
        )
    except UserError as error:
        raise PassError(f"{step.name}: {error.message}") from error
    if found is not None:
        raise PassError(
            f"{step.name}: output {found.output} differs from the original's by {found.error:.2g} "
            f"(relative RMS) on random inputs ({found.feed}), more than the limit of "
            f"{promise.max_relative_error:g}"
        )


def _get_expected_signature(model: Model, result: Model) -> Signature:
    """Return the signature that a result must have, without sizes that may be wrong in the source.

    An .onnx file may state any size for an output and still runs; a .tflite file converted from it
    has the real sizes. The sizes of both are compared where the two are run.
    """
    if result.format == model.format:
        return model.signature
    outputs = tuple(replace(spec, shape=()) for spec in model.signature.outputs)
    return replace(model.signature, outputs=outputs)


def _drop_states(model: Model, result: Model) -> Signature:
    """Return the signature of a result without the states that were variables of a .tflite file."""
    if (model.format, result.format) != ("tflite", "onnx"):
        return result.signature
    states = read_states(load_structure(result.path))
    fed, made = {state.input for state in states}, {state.output for state in states}
    return Signature(
        inputs=tuple(spec for spec in result.signature.inputs if spec.name not in fed),
        outputs=tuple(spec for spec in result.signature.outputs if spec.name not in made),
    )


def _build_loss_error(step: Step, spec: PassSpec, broken: str) -> PassRefused | PassError:
    """Return the error for lost outputs: a request for too much, or a fault of the pass."""
    if spec.needs_original:
        return PassRefused(
            f"{step.name} cannot recover this model: {broken}",
            hint="start from a model that is less compressed, or give more samples",
        )
    if not spec.asks:
        return PassError(f"{step.name}: {broken}")
    return PassRefused(
        f"{step.name} removes too much: {broken}",
        hint=f"compress less (setting {spec.asks}), or give more samples",
    )


def _iter_broken_promises(
    promise: Promise, model: Model, stored: StorageStats, result: Model, work: Work
) -> Iterator[str]:
    yield from check_store(promise, stored, read_storage_stats(result.path))
    if promise.fewer_macs:
        known = work.calibration
        dims = work.feeding.get_largest_sizes(model.signature, known) if known else {}
        yield from check_cost(*(compute_cost(each, dims) for each in (model, result)))


def _load_function(spec: PassSpec) -> PassFunction:
    if callable(spec.function):
        return spec.function
    module, _, name = spec.function.partition(":")
    function: PassFunction = getattr(importlib.import_module(module), name)
    return function
