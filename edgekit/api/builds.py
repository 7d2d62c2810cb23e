"""Functions of a build: start a project, build it, and write its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.api.arguments import (
    Count,
    Device,
    MetricName,
    Minutes,
    Points,
    Sizes,
    Steps,
    resolve_data,
    resolve_device,
    resolve_folder,
)
from edgekit.api.failures import convert_failures
from edgekit.api.passes import choose_recipe, warn_of_old_names
from edgekit.argument_checks import AnyPath, Host, check_arguments
from edgekit.config.profile import AnyRuntime
from edgekit.config.project import Effort
from edgekit.errors import ArgumentError
from edgekit.old_names import OldNames
from edgekit.pipeline.build import BuildOutcome
from edgekit.pipeline.build import build as run_build
from edgekit.pipeline.combination.build import PipelineOutcome
from edgekit.pipeline.combination.build import build_pipeline as run_pipeline_build
from edgekit.pipeline.model_settings import resolve_model
from edgekit.pipeline.request import Request
from edgekit.progress import Tick, ignore_progress
from edgekit.recipe import Recipe
from edgekit.reporting.html import check_has_samples, write_report


def _resolve_request(
    base: Path,
    *,
    device: Device | None,
    data: AnyPath | None,
    evaluation: AnyPath | None,
    out: AnyPath | None,
) -> Request:
    """Return a request with the arguments that name files or a device, resolved in a folder."""
    return Request(
        folder=base,
        device=resolve_device(base, device),
        data=resolve_data(data),
        evaluation=resolve_data(evaluation),
        out=None if out is None else base / out,
    )


def _check_learning(effort: Effort | None, minutes: float | None) -> None:
    """Check that the two arguments on the time of learning do not contradict each other."""
    if effort == "quick" and minutes:
        raise ArgumentError(
            ("effort", "minutes"), "cannot be combined", hint="effort quick learns nothing"
        )


@check_arguments
def build(
    model: AnyPath | None = None,
    *,
    device: Device | None = None,
    data: AnyPath | None = None,
    eval: AnyPath | None = None,
    metric: MetricName | None = None,
    runtime: AnyRuntime | None = None,
    max_drop: Points | None = None,
    effort: Effort | None = None,
    minutes: Minutes | None = None,
    recipe: AnyPath | Recipe | None = None,
    steps: Steps = (),
    on: Host | None = None,
    out: AnyPath | None = None,
    seed: Count | None = None,
    dims: Sizes | None = None,
    trust_pickle: bool = False,
    allow_failing: bool = False,
    strict: bool = False,
    allow_unmeasured: bool = False,
    with_samples: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> BuildOutcome:
    """Compress a model for a device and verify its accuracy.

    Writes the bundle and the report to ``out``. What is not given comes from edgekit.toml in
    ``folder``, from which relative paths are resolved.

    Args:
        model: A model file, a SavedModel folder or ``module:function``.
        device: The device: a name, a .toml file or a profile.
        data: Calibration samples: a .npz file, a folder, or ``module:function``.
        eval: Labeled samples on which every candidate is scored against the original.
        metric: A metric of ``list_metrics``, or ``module:function``.
        runtime: ``onnxruntime``, ``litert``, or ``auto`` for both.
        max_drop: Largest loss of the metric: percentage points of a share, percent of an error
            of the original, else a number in its unit.
        effort: How long candidates that lose too much accuracy may learn from the original, if no
            other meets the budgets: ``quick`` 0 minutes, ``standard`` 10 together, ``thorough``
            60. Needs TensorFlow.
        minutes: Minutes of learning, instead of those of ``effort``.
        recipe: A recipe, or its TOML file, instead of the search.
        steps: Passes to run in this order instead of the search, each a step or a text
            ``NAME[:KEY=VALUE,...]``.
        on: Host on which the candidates are measured as well: ``local``, ``web`` (headless
            Chromium), an ssh alias, or ``user@host:port``.
        out: Output folder; by default ``build/NAME`` in ``folder``.
        seed: Seed of every random choice.
        dims: Sizes of free dimensions by name.
        trust_pickle: Whether the model file may run the code that it carries.
        allow_failing: Pack the nearest candidate if none passes.
        strict: Fail checks that are not measured or not proven.
        allow_unmeasured: Accept a candidate whose accuracy was not measured, as there are no
            evaluation samples.
        with_samples: Draw samples that the candidate changes in the report, with their images or
            texts.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The outcome. Attributes: ``choice``, the candidate that passed every check, or ``None``;
        ``candidates``, each with its measurements and its verdict; ``folder``; ``manifest`` of the
        bundle, ``None`` if none was packed; ``notes`` on the figures; ``report``, path of the page.

    Raises:
        UserError: An argument or one of the files is wrong.
        PassError: A pass of the requested recipe broke its contract.
        DeviceError: The device to measure on could not be reached, or failed.

    Examples:
        >>> import edgekit
        >>> outcome = edgekit.build(
        ...     "model.onnx", device="tablet-x86", eval="eval.npz", steps=["clean"]
        ... )
        >>> outcome.choice.verdict.passes
        True
        >>> outcome.report.as_posix()
        'build/tablet-x86/report.html'
    """
    _check_learning(effort, minutes)
    base, old_names = resolve_folder(folder), OldNames()
    chosen = choose_recipe(recipe, steps, folder=base, old_names=old_names)
    warn_of_old_names(old_names)
    with convert_failures():
        request = replace(
            _resolve_request(base, device=device, data=data, evaluation=eval, out=out),
            model=None if model is None else resolve_model(base, model),
            metric=metric,
            max_drop_points=max_drop,
            effort=effort,
            minutes=minutes,
            runtime=runtime,
            on=on,
            seed=seed,
            recipe=chosen,
            trust_pickle=trust_pickle,
            strict=strict,
            allow_unmeasured=allow_unmeasured,
            with_samples=with_samples,
            dims=dict(dims or {}),
        )
        outcome = run_build(request, progress, allow_failing=allow_failing)
        write_report(outcome.folder, with_samples=outcome.inputs.with_samples)
    return outcome


@check_arguments
def build_pipeline(
    *,
    device: Device | None = None,
    data: AnyPath | None = None,
    eval: AnyPath | None = None,
    metric: MetricName | None = None,
    runtime: AnyRuntime | None = None,
    max_drop: Points | None = None,
    effort: Effort | None = None,
    minutes: Minutes | None = None,
    recipe: AnyPath | Recipe | None = None,
    steps: Steps = (),
    on: Host | None = None,
    out: AnyPath | None = None,
    seed: Count | None = None,
    trust_pickle: bool = False,
    allow_failing: bool = False,
    strict: bool = False,
    with_samples: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> PipelineOutcome:
    r"""Compress the models of a ``[pipeline]`` in turn, judged by the answer of all together.

    ``[pipeline]`` in edgekit.toml names a function ``(models, sample) -> outputs by name`` and the
    models that it calls. Writes a bundle and a report for each model to ``out/NAME``, and
    ``pipeline.json`` with the result of all together to ``out``.

    Args:
        device: The device: a name, a .toml file or a profile.
        data: Calibration samples; what each model gets on them calibrates it.
        eval: Samples on which the compressed models together are compared with all originals.
        metric: A metric of ``list_metrics``, or ``module:function``.
        runtime: ``onnxruntime``, ``litert``, or ``auto`` for both.
        max_drop: Largest loss of the metric by all models together.
        effort: How long candidates of each model may learn from the original: ``quick``,
            ``standard`` or ``thorough``.
        minutes: Minutes of learning for each model, instead of those of ``effort``.
        recipe: A recipe, or its TOML file, for every model, instead of the search.
        steps: Passes to run on every model, instead of the search.
        on: Host on which memory and latency of each model are measured as well; the accuracy too
            with ``on_device = true`` in ``[pipeline]``.
        out: Output folder; by default ``build/NAME`` in ``folder``.
        seed: Seed of every random choice.
        trust_pickle: Whether model files may run the code that they carry.
        allow_failing: Pack the nearest candidate of a model if none passes.
        strict: Fail checks that are not measured or not proven.
        with_samples: Draw samples that the candidates change in the reports, with their images or
            texts.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The outcome. Attributes: ``passes``; ``models``, the outcome of each model by name;
        ``checks`` of all models together; ``comparison`` with all originals; ``folder``.

    Raises:
        UserError: An argument or one of the files is wrong.
        PassError: A pass of the requested recipe broke its contract.
        DeviceError: The device to measure on could not be reached, or failed.

    Examples:
        >>> import edgekit
        >>> from pathlib import Path
        >>> code = [
        ...     "def run(models, sample):",
        ...     "    outputs = models['reader'](image=sample['image'][None])",
        ...     "    return {'scores': outputs['logits'][0]}",
        ... ]
        >>> _ = Path("reading.py").write_text("\n".join(code))
        >>> settings = [
        ...     "[pipeline]",
        ...     "run = 'reading:run'",
        ...     "[pipeline.models.reader]",
        ...     "path = 'model.onnx'",
        ...     "[data]",
        ...     "evaluation = 'eval.npz'",
        ...     "metric = 'top1'",
        ... ]
        >>> _ = Path("edgekit.toml").write_text("\n".join(settings))
        >>> outcome = edgekit.build_pipeline(device="tablet-x86", steps=["clean"])
        >>> outcome.passes
        True
    """
    _check_learning(effort, minutes)
    base, old_names = resolve_folder(folder), OldNames()
    chosen = choose_recipe(recipe, steps, folder=base, old_names=old_names)
    warn_of_old_names(old_names)
    with convert_failures():
        request = replace(
            _resolve_request(base, device=device, data=data, evaluation=eval, out=out),
            metric=metric,
            max_drop_points=max_drop,
            effort=effort,
            minutes=minutes,
            runtime=runtime,
            on=on,
            seed=seed,
            recipe=chosen,
            trust_pickle=trust_pickle,
            strict=strict,
            with_samples=with_samples,
        )
        outcome = run_pipeline_build(request, progress, allow_failing=allow_failing)
        for each in outcome.models.values():
            write_report(each.folder, with_samples=each.inputs.with_samples)
    return outcome


@check_arguments
def report(build_dir: AnyPath, *, with_samples: bool = False) -> Path:
    """Write the HTML report of the last build in a folder again.

    Args:
        build_dir: The folder that ``build`` wrote.
        with_samples: Draw samples that the candidate changes, with their images or texts; the
            build must have drawn them.

    Returns:
        The path of the page.

    Raises:
        UserError: The folder holds no build, its files are damaged, or the build drew no samples.

    Examples:
        >>> import edgekit
        >>> outcome = edgekit.build(steps=["clean"])
        >>> edgekit.report(outcome.folder).name
        'report.html'
    """
    with convert_failures():
        if with_samples:
            check_has_samples(Path(build_dir))
        return write_report(Path(build_dir), with_samples=with_samples)
