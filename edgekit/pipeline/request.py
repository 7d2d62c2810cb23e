"""Reading and checking of the inputs of a build, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import BUILT_FILES, RESULTS, SUFFIX
from edgekit.cache.store import Store, get_default_root
from edgekit.compatibility.runtimes import Runtimes, choose_runtimes
from edgekit.config.output_folders import check_writable
from edgekit.config.profile import AnyRuntime, DeviceProfile, choose_weight_bits, load_profile
from edgekit.config.project import Effort, Project, load_project
from edgekit.data.dataset import Dataset
from edgekit.data.input_settings import Feeding
from edgekit.data.original_outputs import SingleModel
from edgekit.data.table import clean_class_name
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.pipeline.accuracy.answer_choice import choose_answer
from edgekit.pipeline.accuracy.evaluation_split import check_overlap, prepare_evaluation
from edgekit.pipeline.accuracy.metric_choice import choose_margins
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.pipeline.budget_checks import Limits
from edgekit.pipeline.combination.models import CombinedPart
from edgekit.pipeline.model_settings import (
    check_output,
    embed_external_data,
    find_model,
    get_sizes,
    read_feeding,
    set_free_dims,
    with_dims,
)
from edgekit.pipeline.recovery.effort import Learning, choose_learning
from edgekit.pipeline.splits import add_carried_states, open_split
from edgekit.progress import Tick, ignore_progress
from edgekit.recipe import Recipe, set_weight_bits
from edgekit.signing.releases import Signer, get_signer
from edgekit_agent.scoring import Answer

_TIMED = 32  # number of samples; few enough to stay in memory beside the model


@dataclass(frozen=True, kw_only=True)
class Request:
    """Request of the user; ``None`` = the value of edgekit.toml, else the default."""

    folder: Path = Path()
    model: Path | None = None
    device: str | DeviceProfile | None = None
    data: str | None = None
    evaluation: str | None = None
    metric: str | None = None
    max_drop_points: float | None = None
    runtime: AnyRuntime | None = None
    on: str | None = None
    out: Path | None = None
    seed: int | None = None
    recipe: Recipe | None = None  # instead of the search
    trust_pickle: bool = False
    dims: Mapping[str, int] = field(default_factory=dict)  # override those of edgekit.toml
    strict: bool = False
    allow_unmeasured: bool = False
    with_samples: bool = False  # draw changed samples in the report
    effort: Effort | None = None
    minutes: float | None = None  # of learning, instead of those of the effort


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """Checked inputs of a build."""

    project: Project
    profile: DeviceProfile
    model: Model
    runtimes: Runtimes
    calibration: Dataset | None
    evaluation: Dataset
    feeding: Feeding
    scoring: Scoring | None  # None = the accuracy is not measured
    limits: Limits
    on: str | None
    out: Path
    seed: int
    store: Store
    recipe: Recipe | None = None  # the only one to try
    learning: Learning = field(default_factory=Learning)
    signer: Signer | None = None  # None = the bundle is not signed
    part: CombinedPart | None = None  # the model is one of several that are combined
    with_samples: bool = False  # changed samples are drawn in the report
    notes: tuple[str, ...] = ()  # on the samples and the metric
    answer: Answer = field(default_factory=Answer)  # of an application that runs the model

    @property
    def metric(self) -> str:
        """Return the name of the gated metric; empty if the accuracy is not measured."""
        return self.scoring.metrics[0].name if self.scoring else ""

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Return the group of each evaluation sample; ``None`` = each is independent."""
        return self.evaluation.groups

    @property
    def class_names(self) -> Mapping[int, str]:
        """Return the names of the classes by their numbers, as far as they are known."""
        given = self.project.data.class_names
        return dict(enumerate(map(clean_class_name, given))) or self.evaluation.class_names

    @property
    def output(self) -> str | None:
        """Return the output that is scored; ``None`` = the first."""
        return self.project.data.output

    @property
    def model_samples(self) -> Dataset:
        """Return samples that the model itself is run on.

        These are the evaluation samples, unless the model is one of several that are combined.
        """
        return self.part.samples if self.part else self.evaluation

    @property
    def timing_samples(self) -> Dataset:
        """Return the samples for timing, from those that the model itself is run on.

        If states are fed back there, they are from the calibration split, whose states all have one
        size, so that candidates are timed on the same step of a sequence.
        """
        if self.part:
            return self.part.samples.first(_TIMED)
        carried = bool(self.evaluation.samples.states)
        split = self.calibration if carried and self.calibration else self.evaluation
        return split.first(_TIMED)

    @property
    def model_dims(self) -> dict[str, int]:
        """Return the sizes of free dimensions that edgekit.toml and the request set."""
        if self.part and self.project.pipeline:
            return self.project.pipeline.models[self.part.name].dims
        return self.project.model.dims

    @property
    def dims(self) -> dict[str, int]:
        """Return the sizes of free dimensions, from the data and from settings.

        Dimensions along which samples differ in size have none.
        """
        splits = (self.model_samples, self.calibration)
        return get_sizes(self.model, self.feeding, self.model_dims, splits)


def read_build_inputs(request: Request, tick: Tick = ignore_progress) -> BuildInputs:
    """Read and check everything that a build needs.

    Args:
        request: Request of the user.
        tick: Progress callback of the conversion of the model.

    Raises:
        UserError: Request, model, data or profile are wrong.
    """
    project = load_project(request.folder)
    profile = load_profile(choose_device(request, project))
    signer = get_signer(project.release)
    store = Store(get_default_root())
    check_writable(store.root, hint="set EDGEKIT_CACHE to use another folder for the cache")
    model = find_model(
        request.folder, request.model, project, trusted=request.trust_pickle, tick=tick
    )
    project = with_dims(project, model, request.dims)
    out = request.out or request.folder / "build" / profile.name
    check_out(out, model, profile.name)
    asked = request.runtime or project.build.runtime
    usable = choose_runtimes(model, profile, None if asked == "auto" else asked)
    check_output(project, model)
    feeding = read_feeding(request.folder, project, model)
    opened = partial(
        open_split,
        model=model,
        feeding=feeding,
        folder=request.folder,
        settings=project.data.preprocess,
        files=project.data.files,
        tick=tick,
    )
    split = opened(request.evaluation or project.data.evaluation, targets="optional")
    source = request.data or project.data.calibration
    if split is None and source is not None:
        raise UserError(
            "no evaluation data",
            hint="give --eval EVAL, or [data] evaluation in edgekit.toml; labels are optional",
        )
    unfed = opened(source, targets="none")
    shared = check_overlap(unfed, split) if split else ()
    calibration = add_carried_states(unfed, model, feeding, tick)
    evaluation = prepare_evaluation(
        split,
        model,
        project,
        folder=request.folder,
        metric=request.metric,
        feeding=feeding,
        store=store,
        tick=tick,
    )
    seed = project.build.seed if request.seed is None else request.seed
    scoring, samples = evaluation.scoring, evaluation.dataset
    dims = get_sizes(model, feeding, project.model.dims, (samples, calibration))
    return BuildInputs(
        project=project,
        with_samples=request.with_samples or project.build.examples,
        learning=choose_learning(request.effort, request.minutes, project.build),
        profile=profile,
        model=embed_external_data(model, store),
        runtimes=usable,
        calibration=calibration,
        evaluation=samples,
        notes=(*shared, *evaluation.notes),
        feeding=feeding,
        scoring=scoring,
        limits=make_limits(request, project, profile, scoring),
        answer=choose_answer(
            project,
            scoring,
            samples,
            SingleModel(model=model),
            class_count=len(project.data.class_names or samples.class_names),
            tick=tick,
        ),
        on=request.on,
        out=out,
        seed=seed,
        store=store,
        recipe=complete_recipe(request.recipe, model, feeding, dims, seed, profile)
        if request.recipe
        else None,
        signer=signer,
    )


def make_limits(
    request: Request, project: Project, profile: DeviceProfile, scoring: Scoring | None
) -> Limits:
    """Return the limits that a candidate must keep."""
    margins = (
        choose_margins(scoring, request.max_drop_points, project.gate, profile.budget)
        if scoring
        else ()
    )
    return Limits(
        budget=profile.budget,
        margins=margins,
        require_proof=project.gate.require_proof,
        strict=request.strict,
        allow_unmeasured=request.allow_unmeasured,
    )


def complete_recipe(
    recipe: Recipe,
    model: Model,
    feeding: Feeding,
    dims: Mapping[str, int],
    seed: int,
    profile: DeviceProfile,
) -> Recipe:
    """Return a requested recipe with seed, sizes of free dimensions and bits of weights."""
    bits = choose_weight_bits(profile)
    steps = (set_weight_bits(set_free_dims(s, model, feeding, dims), bits) for s in recipe.steps)
    return replace(recipe, seed=seed, steps=tuple(steps))


def choose_device(request: Request, project: Project) -> str | DeviceProfile:
    """Return the device of the request, else that of edgekit.toml.

    Raises:
        UserError: There is none.
    """
    if request.device is not None:
        return request.device
    device = project.build.device
    if device is None:
        raise UserError("no device", hint="give --device NAME; 'edgekit devices' lists them")
    return str(request.folder / device) if device.endswith(".toml") else device


def check_out(out: Path, model: Model, device: str) -> None:
    """Check that the build may write to ``out`` and replaces nothing but an older build."""
    check_writable(out, hint="choose another folder with --out")
    names = (*BUILT_FILES, f"{device}{SUFFIX}")
    held = [name for name in names if (out / name).exists()]
    taken = bool(held) and not (out / RESULTS).exists()
    if taken or model.path.resolve() in [(out / name).resolve() for name in held]:
        raise UserError(
            f"{out}: the build would replace {', '.join(held)}, which edgekit did not write",
            hint="choose another folder with --out",
        )
