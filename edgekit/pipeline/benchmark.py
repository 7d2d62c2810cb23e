"""Measurement of latency, memory and accuracy of a bundle or a model on a host."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.bundle_file import Bundle, open_bundle
from edgekit.bundle.golden_samples import check_golden_samples
from edgekit.bundle.latency_stats import LatencySummary, summarize
from edgekit.bundle.manifest import SUFFIX, Manifest
from edgekit.bundle.results import Score
from edgekit.bundle.sent_files import SentFiles, describe_golden_samples
from edgekit.cache.store import Store, get_default_root
from edgekit.compression.checks.contract_inputs import write_made_up_samples
from edgekit.config.profile import DeviceProfile, get_runtime, load_profile
from edgekit.config.project import Project, load_project
from edgekit.conversion.importers.source import is_saved_model
from edgekit.conversion.open_model import read_model
from edgekit.data.dataset import Dataset
from edgekit.data.input_settings import Feeding
from edgekit.data.original_outputs import SingleModel
from edgekit.data.readers import read_table
from edgekit.errors import DeviceError, UserError
from edgekit.metrics.registry import get_metric
from edgekit.model import Model
from edgekit.pipeline.accuracy.metric_choice import choose_scoring
from edgekit.pipeline.accuracy.output_kind import resolve_logits
from edgekit.pipeline.accuracy.resumable_scoring import Unfinished, score
from edgekit.pipeline.accuracy.tallies import Scoring, compute_scores
from edgekit.pipeline.measure_targets import HostPlace
from edgekit.pipeline.model_settings import check_output, find_model, read_feeding, with_dims
from edgekit.pipeline.places.browser_place import Device, open_device
from edgekit.pipeline.proposals.missing_settings import complete_project
from edgekit.pipeline.splits import open_split
from edgekit.pipeline.timing import Timing, time_interleaved
from edgekit.progress import Tick, ignore_progress
from edgekit.remote.home import DEFAULT, Home
from edgekit.remote.host_names import LOCAL, WEB
from edgekit.remote.session import open_session
from edgekit_agent.measure.feeds import open_columns
from edgekit_agent.results import DeviceFacts
from edgekit_agent.samples import Column, Samples
from edgekit_agent.scoring import MetricJob
from edgekit_agent.worker_jobs import ModelRef
from edgekit_agent.worker_results import Report

_TIMING = Timing(rounds=3, warmup_s=3.0, seconds=2.0, min_runs=20, max_runs=5000)
_ONCE = Timing(rounds=1, warmup_s=0.0, seconds=0.0, min_runs=1, max_runs=1)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Model to measure, with the samples and settings of the measurement."""

    model: Model
    profile: DeviceProfile | None
    inputs: Samples | None  # for timing; None = random inputs that fit the signature
    evaluation: Dataset | None
    scoring: Scoring
    dims: dict[str, int]
    golden: str = ""  # real samples in the golden samples, which are timed without evaluation

    @property
    def sent(self) -> SentFiles:
        """Return the files that a device gets for the measurement."""
        names = (self.model.path.name,)
        if self.evaluation is None:
            timed = ("inputs to time",) if self.inputs else ()
            return SentFiles(names=(*names, *timed), real_samples=self.golden)
        held = (
            f"the {self.evaluation.count:,} evaluation samples of {self.evaluation.source} are "
            "sent too, and removed from the device at the end"
        )
        return SentFiles(names=names, real_samples=held)


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Measurement of a model on one host."""

    host: str
    facts: DeviceFacts
    runtime: str
    threads: int
    times: LatencySummary
    peak_rss_bytes: int
    load_ms: float
    scores: tuple[Score, ...]
    reports: tuple[Report, ...]
    notes: tuple[str, ...]
    sent: SentFiles | None = None


@contextmanager
def open_subject(
    target: Path,
    *,
    folder: Path,
    evaluation: str | None,
    metric: str | None,
    device: str | DeviceProfile | None,
    trusted: bool = False,
    dims: Mapping[str, int] | None = None,
    tick: Tick = ignore_progress,
) -> Iterator[Subject]:
    """Open a bundle with its own settings, or a model with those of the project, for measurement.

    Args:
        target: A build folder, a bundle file or a model.
        folder: Folder of edgekit.toml, and the base of a relative ``evaluation``.
        evaluation: Labeled samples to score, if any.
        metric: Metric that overrides that of the bundle or the project.
        device: Profile that gives threads and runtime versions; a bundle has its own.
        trusted: Whether a model file may run the code that it carries.
        dims: Sizes of free dimensions of a model; they override those of edgekit.toml.
        tick: Progress callback of the conversion of a model.

    Raises:
        UserError: One of the inputs cannot be used.
    """
    if target.suffix == SUFFIX or (target.is_dir() and not is_saved_model(target)):
        if dims:
            raise UserError(
                "--dims: not possible for a bundle, whose golden samples have fixed sizes",
                hint="give the model file instead, or omit --dims",
            )
        with tempfile.TemporaryDirectory() as scratch:
            yield _open_bundle_subject(
                open_bundle(target), Path(scratch), folder, evaluation, metric, tick
            )
        return
    project = load_project(folder)
    model = find_model(folder, target, project, trusted=trusted, tick=tick)
    project = with_dims(project, model, dims or {})
    check_output(project, model)
    feeding = read_feeding(folder, project, model)
    data = open_split(
        evaluation,
        model,
        feeding=feeding,
        folder=folder,
        settings=project.data.preprocess,
        files=project.data.files,
        targets="required",
        tick=tick,
    )
    if data is not None:
        project = complete_project(
            project, model, data, folder=folder, metric=metric, tick=tick
        ).project
    with tempfile.TemporaryDirectory() as scratch:
        needs_made_up = data is None and bool(feeding.digest)
        made_up = write_made_up_samples(model, feeding, Path(scratch)) if needs_made_up else None
        yield Subject(
            model=model,
            profile=load_profile(device) if device else None,
            inputs=data.first(32).samples if data else made_up,
            evaluation=data,
            scoring=_choose_model_scoring(project, model, folder, metric, data, tick),
            dims=project.model.dims,
        )


def bench(subject: Subject, host: str, tick: Tick, home: Home = DEFAULT) -> BenchResult:
    """Measure a model on one host; missing files are sent, the served release does not change.

    Raises:
        UserError: Model, samples and metric do not fit together.
        DeviceError: The host cannot be reached, or cannot run the model.
    """
    try:
        return _measure(subject, host, tick, home)
    except DeviceError as error:
        if error.kind != "bad_job":
            raise
        mistake = error if host == LOCAL else _find_mistake(subject, tick)
        if mistake is None:
            raise
        said = mistake.message.removeprefix(f"{LOCAL}: ")
        raise UserError(f"{host}: {said}", hint=mistake.hint) from error


def _find_mistake(subject: Subject, tick: Tick) -> DeviceError | None:
    """Find out why this machine refuses the request as well; the device alone proves no mistake."""
    home = Store(get_default_root()).root / "host"
    try:
        with open_session(LOCAL, home=str(home)) as session:
            place = HostPlace(session, threads=1)
            ref = place.model_ref(subject.model)
            time_interleaved(
                session,
                {"model": ref},
                subject.inputs,
                dims=subject.dims,
                timing=_ONCE,
                racing=["model"],
                tick=tick,
            )
            if subject.evaluation is not None:
                score(
                    session,
                    ref,
                    subject.evaluation.samples,
                    scoring=subject.scoring,
                    tick=tick,
                    dataset=subject.evaluation,
                )
    except DeviceError as error:
        return error if error.kind == "bad_job" else None
    return None


def _measure(subject: Subject, host: str, tick: Tick, home: Home) -> BenchResult:
    store = Store(get_default_root())
    with open_device(host, subject.profile, root=store.root, tick=tick, home=home) as place:
        ref = place.model_ref(subject.model)
        inputs = place.samples(subject.inputs) if subject.inputs else None
        reports = time_interleaved(
            place.agent,
            {"model": ref},
            inputs,
            dims=subject.dims,
            timing=_TIMING,
            racing=["model"],
            tick=tick,
        )["model"]
        if isinstance(reports, str):
            raise DeviceError(reports)
        tally = None
        if subject.evaluation is not None:
            samples = place.samples(subject.evaluation.samples)
            tally = score(
                place.agent,
                ref,
                samples,
                scoring=subject.scoring,
                tick=tick,
                dataset=subject.evaluation,
                unfinished=Unfinished(store=store, key=_compute_tally_key(subject, place, ref)),
            )
    return BenchResult(
        host=host,
        facts=place.facts,
        runtime=f"{reports[0].runtime} {reports[0].runtime_version}",
        threads=max(r.latency.threads for r in reports),
        times=summarize([r.latency for r in reports]),
        peak_rss_bytes=max(r.peak_rss_bytes for r in reports),
        load_ms=min(r.latency.load_ms for r in reports),
        scores=compute_scores(tally, subject.scoring, _get_groups(subject)) if tally else (),
        reports=tuple(reports),
        notes=tuple(_iter_notes(subject, host, place.facts)),
        sent=subject.sent,
    )


def _get_groups(subject: Subject) -> NDArray[np.int64] | None:
    return subject.evaluation.groups if subject.evaluation else None


def _compute_tally_key(subject: Subject, place: Device, ref: ModelRef) -> str:
    """Compute the key of a tally from everything that decides it, including the device."""
    facts = [
        place.identity(get_runtime(subject.model)),
        subject.model.digest,
        subject.evaluation.digest if subject.evaluation else "",
        subject.scoring.digest,
        ref.threads,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _open_bundle_subject(
    bundle: Bundle,
    scratch: Path,
    folder: Path,
    evaluation: str | None,
    metric: str | None,
    tick: Tick,
) -> Subject:
    manifest = bundle.manifest
    if evaluation is not None and not metric and "pipeline" in manifest.provenance:
        raise UserError(
            "--eval: the model of this bundle is one of several of a [pipeline], and has no metric "
            "of its own",
            hint="'edgekit build' measures the accuracy of all models together; give --metric if "
            "the samples are inputs and targets of this model alone",
        )
    for name in (manifest.model, manifest.golden_samples):
        (scratch / name).write_bytes(bundle.read(name))
    model = read_model(scratch / manifest.model)
    data = open_split(
        evaluation,
        model,
        feeding=read_feeding(folder, load_project(folder), model) if evaluation else Feeding(),
        folder=folder,
        settings=manifest.preprocess,
        files=load_project(folder).data.files,
        targets="required",
        tick=tick,
    )
    return Subject(
        model=model,
        profile=manifest.profile,
        inputs=data.first(32).samples
        if data
        else _read_golden_inputs(scratch, manifest.golden_samples),
        evaluation=data,
        scoring=_choose_bundle_scoring(manifest, metric, folder if data else None),
        dims={},
        golden=describe_golden_samples(manifest),
    )


def _choose_model_scoring(
    project: Project,
    model: Model,
    folder: Path,
    metric: str | None,
    data: Dataset | None,
    tick: Tick,
) -> Scoring:
    scoring = choose_scoring(project, model.signature, folder=folder, metric=metric)
    return (
        resolve_logits(scoring, project, SingleModel(model=model), data, tick) if data else scoring
    )


def _choose_bundle_scoring(manifest: Manifest, metric: str | None, folder: Path | None) -> Scoring:
    """Return the metrics of a bundle, or the requested one, with the options of the bundle.

    Args:
        manifest: Manifest of the bundle.
        metric: The requested metric.
        folder: Folder in which the code of the user's metrics is searched; ``None`` = nothing is
            scored, so that no code is needed.
    """
    options = manifest.metric_options.to_options(manifest.output)
    names = (metric,) if metric else (manifest.metric, *manifest.guards)
    if folder is not None:
        if not names[0] or get_metric(names[0], folder).compares_outputs:
            measured = f"its candidates were judged by {names[0]}" if names[0] else "it has none"
            raise UserError(
                f"--eval: the bundle has no metric of labeled samples: {measured}",
                hint="name one with --metric",
            )
        names = tuple(get_metric(name, folder).name for name in names)
    return Scoring(
        metrics=tuple(MetricJob(name, options) for name in names),
        postprocess=manifest.get_postprocess(),
    )


def _read_golden_inputs(folder: Path, name: str) -> Samples:
    """Read the inputs of the golden samples as samples; they are already preprocessed."""
    check_golden_samples(str(folder / name), name)
    found: dict[str, list[Column]] = {"input": [], "constant": [], "axis": []}
    for column in read_table(name, folder=folder, cache=folder).columns:
        kind, _, own = column.name.partition(":")
        found.setdefault(kind, []).append(replace(column, name=own))
    with open_columns(found["axis"]) as opened:
        axes = {name: int(rows.read(0, 1)[0]) for name, rows in opened.items()}
    return Samples(
        tuple(replace(c, axis=axes.get(c.name, 0)) for c in found["input"]),
        constants=tuple(replace(c, shape=c.shape[1:]) for c in found["constant"]),
    )


def _iter_notes(subject: Subject, host: str, facts: DeviceFacts) -> Iterator[str]:
    profile = subject.profile
    if host == WEB:
        yield f"measured in headless {facts.system} on this machine"
    if profile and profile.hardware.arch != facts.machine:
        yield (
            f"this machine is {facts.machine}, the bundle is for {profile.hardware.arch} "
            f"({profile.name}): its results do not apply to that device"
        )
    if subject.inputs is None:
        yield "timed with random inputs; give --eval to time with real samples"
