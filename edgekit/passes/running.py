"""Run a step and hold its result against what the pass promises."""

from __future__ import annotations

import importlib

import numpy as np

from edgekit.data import rows_of
from edgekit.errors import PassError, PassRefused, UserError
from edgekit.graphs.observe import observe
from edgekit.graphs.onnx_file import load, read_onnx
from edgekit.model import Model
from edgekit.passes import PASSES, PassFunction, PassSpec, Work
from edgekit.recipe import Step
from edgekit_agent.records import Samples

_AGREEMENT_SAMPLES = 4


def run_step(step: Step, model: Model, work: Work) -> Model:
    """The model that a step makes of another, checked.

    Raises:
        PassRefused: the pass does not apply to this model.
        PassError: the result is unchanged, does not load, has another signature, is not finite,
            or disagrees with the input beyond what the pass promises.
    """
    spec = PASSES[step.name]
    if model.format not in spec.formats:
        raise PassRefused(f"{step.name} takes {' or '.join(spec.formats)}, not {model.format}")
    if spec.needs_calibration and work.calibration is None:
        raise PassRefused(f"{step.name} needs calibration data", hint="give --data CALIB")
    path = _function(spec)(model, step.settings, work)
    try:
        result = read_onnx(path)
    except UserError as error:
        raise PassError(f"{step.name}: the result does not load: {error.message}") from error
    if result.digest == model.digest and not spec.may_find_nothing:
        raise PassError(f"{step.name}: the file is unchanged")
    if _interface(result) != _interface(model):
        raise PassError(f"{step.name}: inputs or outputs are not those of the original")
    if work.calibration is not None:
        _check_agreement(step.name, spec, model, result, work.calibration)
    return result


def _interface(model: Model) -> list[tuple[str, str]]:
    return [(t.name, t.dtype) for t in (*model.signature.inputs, *model.signature.outputs)]


def _function(spec: PassSpec) -> PassFunction:
    module, _, name = spec.function.partition(":")
    function: PassFunction = getattr(importlib.import_module(module), name)
    return function


def _check_agreement(
    name: str, spec: PassSpec, before: Model, after: Model, samples: Samples
) -> None:
    try:
        count = min(_AGREEMENT_SAMPLES, samples.columns[0].shape[0])
        error = relative_error(before, after, rows_of(samples, 0, count))
    except ValueError as mismatch:
        raise PassError(f"{name}: {mismatch}") from mismatch
    except UserError as failure:
        raise PassError(f"{name}: the result does not run: {failure.message}") from failure
    if not np.isfinite(error):
        raise PassError(f"{name}: outputs are not finite where those of the original are")
    if spec.max_relative_error is not None and error > spec.max_relative_error:
        raise PassError(
            f"{name}: outputs differ from the original by {error:.2g} relative RMS, "
            f"more than {spec.max_relative_error:g}"
        )


def relative_error(before: Model, after: Model, samples: Samples) -> float:
    """RMS difference of all outputs over their RMS; NaN where only ``after`` is not finite.

    Raises:
        ValueError: an output has another shape.
    """
    names = [o.name for o in before.signature.outputs if np.dtype(o.dtype).kind in "biuf"]
    power, difference = 0.0, 0.0
    pairs = zip(
        observe(load(before.path), names, [samples]),
        observe(load(after.path), names, [samples]),
        strict=True,
    )
    for old, new in pairs:
        for name in names:
            if old[name].shape != new[name].shape:
                raise ValueError(
                    f"output {name} is {list(new[name].shape)}, was {list(old[name].shape)}"
                )
            reference = old[name].astype(np.float64)
            kept = np.isfinite(reference)
            power += float(np.square(reference[kept]).sum())
            difference += float(np.square(new[name].astype(np.float64) - reference)[kept].sum())
    return float(np.sqrt(difference / max(power, 1e-30)))
