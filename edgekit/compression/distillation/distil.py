"""Recovery of a compressed model: it learns from the original, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.compression.distillation.feature_pairs import find_features
from edgekit.compression.distillation.lessons import Lessons, find_augmentation
from edgekit.compression.distillation.output_checks import find_incomparable_outputs
from edgekit.compression.distillation.output_losses import (
    choose_output_targets,
    list_float_outputs,
    list_output_values,
)
from edgekit.compression.distillation.sample_pool import Arrays, SamplePool
from edgekit.compression.distillation.value_session import ValueSession
from edgekit.compression.pass_specs import Work
from edgekit.conversion.model_facts import compute_cost
from edgekit.errors import PassRefused, UserError
from edgekit.model import Model
from edgekit.onnx_graph.io import load, save
from edgekit.pass_settings import Distil
from edgekit.training.learning.targets import Targets
from edgekit.training.messages import silence_tensorflow

_HELD_OUT = 32
_FEW = 256  # with fewer samples a warning is given
_MATCHED = 32  # samples on which inner values are compared
# Without a number of steps, learning ends after so many, or so many rounds through the samples.
_ENOUGH_STEPS, _ROUNDS = 5000, 300
_MAC_BATCH = 2_000_000_000  # multiply-accumulates of a batch, within the next bounds on its size
_LEAST_BATCH, _MOST_BATCH = 8, 64
# What messages call the two models.
_TEACHER, _STUDENT = "original model", "student"


def distil(model: Model, settings: Distil, work: Work) -> Path:
    """Let a compressed model learn the values of the original on calibration samples.

    The loss is the divergence of the outputs and the error of inner values of the same name. The
    student that does best on samples it does not learn from is kept, as the running average of its
    weights. Weights that were pruned stay zero, integers stay integers of the same number of bits.

    Sources: Hinton et al. 2015 (distillation); Romero et al. 2015 (inner values); Bengio et al.
    2013 and Esser et al. 2020 (integers); Beyer et al., Knowledge distillation: a good teacher is
    patient and consistent, 2022 (the same changed sample for both).

    Raises:
        PassRefused: there is no original, no data or no output to learn from, or an operator has no
            gradient.
        UserError: TensorFlow is missing, or the samples do not fit the model.
    """
    if work.original is None:
        raise PassRefused(
            "distil needs the original model, from which this one learns",
            hint="use: edgekit distil ORIGINAL --student MODEL",
        )
    if not work.fitting:
        raise PassRefused("distil needs calibration data")
    with silence_tensorflow():
        from edgekit.training.learning.training_run import Limits, TrainingRun
    student, original = load(model.path), load(work.original.path)
    folder = work.scratch / "samples"
    folder.mkdir()
    pool = SamplePool(student, work.fitting, folder, most=settings.max_samples)
    _note_samples(pool, work)
    held = _read_held_out(student, pool, work)
    targets = _choose_targets(original, student, pool, settings, work)
    teacher = ValueSession(original, targets.teacher_values, model=_TEACHER)
    augmentation = None
    if settings.augment:
        work.progress("choosing changes of samples", 0, 0)
        augmentation = find_augmentation(
            pool, teacher, targets, fixed=work.feeding.states.keys(), seed=work.seed
        )
        if augmentation.changes:
            work.note(f"learned from samples changed at random: {augmentation.description}")
    batch = settings.batch or _choose_batch(model, work)
    lessons = Lessons(pool, teacher, augmentation=augmentation, batch=batch, seed=work.seed)
    run = TrainingRun(
        student,
        targets,
        limits=Limits(
            rate=settings.rate,
            batch_share=min(1.0, batch / _MOST_BATCH),
            steps=settings.steps,
            most_steps=max(_ENOUGH_STEPS, _ROUNDS * pool.count // batch),
            seconds=60 * settings.minutes,
        ),
        draw=lessons.draw,
        held=lessons.answer(held),
        resume=work.resume,
        tick=work.progress,
    )
    outcome = run.train()
    for note in outcome.notes:
        work.note(note)
    if outcome.proto is None:
        return model.path
    target = work.scratch / "distilled.onnx"
    save(outcome.proto, target)
    return target


def _read_held_out(proto: ModelProto, pool: SamplePool, work: Work) -> list[Arrays]:
    """Read samples that neither this pass nor an earlier one fits to.

    Earlier passes have fitted the student to all other calibration samples, so that on those it
    looks better at the start than it is.
    """
    if not work.unseen:
        return pool.split(_HELD_OUT)
    folder = work.scratch / "held-out"
    folder.mkdir()
    unseen = SamplePool(proto, work.unseen, folder, most=_HELD_OUT)
    return unseen.read_all()


def _note_samples(pool: SamplePool, work: Work) -> None:
    if pool.left_out:
        work.note(f"{pool.left_out} samples of rare sizes were not used for learning")
    if pool.count < _FEW:
        work.note(
            f"{pool.count} samples are few to learn from: the result may do worse on others; give "
            f"at least {_FEW}, labels are not needed"
        )


def _choose_targets(
    original: ModelProto, student: ModelProto, pool: SamplePool, settings: Distil, work: Work
) -> Targets:
    """Choose the outputs and inner values to match, and their losses, on a few samples."""
    rng = np.random.default_rng(work.seed)
    size = pool.size or 8
    count = min(size, pool.count)
    runs = [part for _ in range(max(_MATCHED // size, 1)) for part in pool.draw(count, rng)]
    wanted = _compute(original, list_output_values(original), runs, model=_TEACHER)
    names = list_float_outputs(original)
    given = _compute(student, names, runs, model=_STUDENT)
    left_out = find_incomparable_outputs(names, wanted, given)
    for name in left_out:
        work.note(f"output {name} was not learned: its size differs from that of the original")
    outputs = choose_output_targets(original, student, wanted, left_out=left_out)
    if not outputs:
        raise PassRefused(
            "the model has no float output of fixed size to learn from",
            hint="leave out post-processing, such as ArgMax or NonMaxSuppression, at export",
        )
    if not settings.features:
        return Targets(outputs=outputs)
    features = find_features(
        original,
        student,
        compute_original=lambda of: _compute(original, of, runs, model=_TEACHER),
        compute_student=lambda of: _compute(student, of, runs, model=_STUDENT),
    )
    return Targets(outputs=outputs, features=features)


def _compute(
    proto: ModelProto, names: Sequence[str], runs: Sequence[Arrays], *, model: str
) -> list[dict[str, NDArray[np.generic]]]:
    session = ValueSession(proto, names, model=model)
    return [session.compute(run) for run in runs]


def _choose_batch(model: Model, work: Work) -> int:
    """Choose the number of samples in a step from the arithmetic of the model."""
    assert work.calibration is not None
    dims = work.feeding.get_largest_sizes(model.signature, work.calibration)
    try:
        macs = compute_cost(model, dims).macs
    except UserError:
        return _LEAST_BATCH
    wanted = _MAC_BATCH // max(macs, 1)
    return next((n for n in (_MOST_BATCH, 32, 16) if n <= wanted), _LEAST_BATCH)
