"""Runner of recipes and measurements; earlier results are reused from the store."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import TracebackType

from edgekit.bundle.layer_report import (
    LayerCost,
    decode_layers,
    encode_layers,
    prepend_remarks,
    read_layers,
)
from edgekit.bundle.results import Candidate, Measurement, Rejection, Score
from edgekit.bundle.sample_statistics import KnownStatistics
from edgekit.compression.all_passes import get_pass, get_tools
from edgekit.compression.checks.crash_reports import format_crash_hint, write_crash
from edgekit.compression.pass_specs import Work
from edgekit.compression.step_runner import StepResult, run_checked
from edgekit.config.profile import RuntimeName, get_runtime
from edgekit.conversion.open_model import read_model
from edgekit.errors import (
    DeviceError,
    EdgekitError,
    PassCrash,
    PassError,
    PassRefused,
)
from edgekit.model import Model
from edgekit.pass_settings import Clean, ToOnnx
from edgekit.pipeline.accuracy.resumable_scoring import Unfinished, score
from edgekit.pipeline.accuracy.tallies import compute_scores
from edgekit.pipeline.golden_samples import get_golden_samples
from edgekit.pipeline.measure_targets import (
    HOST,
    Place,
    compute_host_identity,
    open_host_place,
)
from edgekit.pipeline.places.browser_place import open_device
from edgekit.pipeline.refusals import decode_refusal, encode_refusal, make_rejection
from edgekit.pipeline.request import BuildInputs
from edgekit.pipeline.timing import Timing, time_interleaved
from edgekit.pipeline.tool_versions import get_tool_version
from edgekit.pipeline.transfer_size import get_transfer_bytes
from edgekit.progress import Tick
from edgekit.recipe import Recipe, Step, compute_candidate_key
from edgekit.remote.home import profile_home
from edgekit.remote.pip_command import PipMissing
from edgekit_agent.codec import decode, encode
from edgekit_agent.worker_results import Report, Tally


@dataclass(frozen=True, kw_only=True)
class _Product:
    """Model made by steps, with the layer costs and notes of these steps."""

    model: Model
    layers: tuple[LayerCost, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class BuildRunner:
    """Runner of one build's recipes and measurements; opens measuring places only when needed."""

    inputs: BuildInputs
    tick: Tick
    timing: Timing = field(default_factory=Timing)
    # Small devices start processes slowly, and rarely run anything else.
    device_timing: Timing = field(default_factory=lambda: Timing(rounds=3))

    def __enter__(self) -> BuildRunner:
        self._stack = ExitStack()
        self._stack.enter_context(self.inputs.store.lock_shared())
        self._places: dict[str, Place] = {}
        self._statistics = KnownStatistics()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # ------------------------------------------------------------ making

    def make(self, recipe: Recipe) -> Candidate | Rejection:
        """Run a recipe; return a ``Rejection`` if one of its passes does not apply to the model."""
        key = self._compute_candidate_key(recipe)
        try:
            with self.inputs.store.scratch() as scratch:
                made = self._run(recipe, scratch)
            if made.model.beside and recipe.steps:
                raise PassRefused("the result is larger than 2 GiB, the limit of one file")
        except PassRefused as refusal:
            self._remember_refusal(key, refusal)
            return make_rejection(recipe, refusal)
        except PassError as failure:
            return self.reject(recipe, failure)
        return Candidate(
            key=key, recipe=recipe, model=made.model, layers=made.layers, notes=made.notes
        )

    def reject(self, recipe: Recipe, failure: EdgekitError) -> Rejection:
        """Return the rejection of a recipe that failed by a fault of edgekit; write a crash report.

        The failure is not stored, and other recipes are not affected.
        """
        hint = failure.hint
        if isinstance(failure, PassCrash):
            hint = format_crash_hint(failure, write_crash(failure, self.inputs.store.root))
        return Rejection(recipe=recipe, reason=f"failed: {failure.message}", broken=True, hint=hint)

    def _run(self, recipe: Recipe, scratch: Path) -> _Product:
        """Run the steps of a recipe; layer costs are those of the last step that recorded any.

        Recipes with the same first steps share the results of these steps.
        """
        if not recipe.steps:
            return _Product(model=self.inputs.model)
        key = self._compute_candidate_key(recipe)
        known = self._recall_product(key)
        if known is not None:
            return known
        self._raise_refusal(key)
        *before, step = recipe.steps
        earlier = self._run(replace(recipe, steps=tuple(before)), scratch)
        calibration = self.inputs.calibration
        folder = Path(tempfile.mkdtemp(dir=scratch))
        work = Work(
            scratch=folder,
            calibration=calibration.samples if calibration else None,
            progress=lambda what, n, of: self.tick(f"{recipe.name}: {what}", n, of),
            seed=recipe.seed,
            feeding=self.inputs.feeding,
            original=self._make_original(recipe, scratch),
        )
        self.tick(f"{recipe.name}: {step.name}", len(before), len(before) + 1)
        try:
            made = self._run_step(step, earlier.model, work, key)
        except PassRefused as refusal:
            # Store it for other recipes with the same first steps.
            self._remember_refusal(key, refusal)
            raise
        layers = prepend_remarks(read_layers(folder), earlier.layers) or earlier.layers
        notes = tuple(dict.fromkeys((*earlier.notes, *made.notes)))
        model = made.model
        if not model.beside:  # a model of several files is kept only in the scratch folder
            model = replace(model, path=self.inputs.store.put(model.path))
            facts = {"digest": model.digest, "layers": encode_layers(layers), "notes": notes}
            self.inputs.store.remember("candidates", key, facts)
        return _Product(model=model, layers=layers, notes=notes)

    def _make_original(self, recipe: Recipe, scratch: Path) -> Model | None:
        """Make the model before the first step that compresses it, if the last step reads it."""
        *before, step = recipe.steps
        if not get_pass(step.name).needs_original:
            return None
        first = takewhile(lambda s: isinstance(s.settings, ToOnnx | Clean), before)
        return self._run(replace(recipe, steps=tuple(first)), scratch).model

    def _run_step(self, step: Step, model: Model, work: Work, key: str) -> StepResult:
        if not get_pass(step.name).needs_original:
            return run_checked(step, model, work)
        with self.inputs.store.checkpoints(key) as folder:
            return run_checked(step, model, replace(work, resume=folder))

    def _remember_refusal(self, key: str, refusal: PassRefused) -> None:
        self.inputs.store.remember("candidates", key, encode_refusal(refusal))

    def _raise_refusal(self, key: str) -> None:
        """Raise the stored refusal of the last step under a key, if there is one."""
        refusal = decode_refusal(self.inputs.store.recall("candidates", key))
        if refusal is not None:
            raise refusal

    def _recall_product(self, key: str) -> _Product | None:
        """Return the product stored under a key, if it is still complete."""
        facts = self.inputs.store.recall("candidates", key)
        path = self.inputs.store.get(facts["digest"]) if facts and "digest" in facts else None
        if facts is None or path is None:
            return None
        try:
            return _Product(
                model=read_model(path),
                layers=decode_layers(facts["layers"]),
                notes=tuple(map(str, facts["notes"])),
            )
        except (KeyError, TypeError, ValueError):
            return None  # of another version: build it again

    def _compute_candidate_key(self, recipe: Recipe) -> str:
        specs = [get_pass(step.name) for step in recipe.steps]
        calibration = self.inputs.calibration
        reads = calibration is not None and any(spec.needs_calibration for spec in specs)
        splits = {"calibration": calibration.digest} if calibration and reads else {}
        if self.inputs.feeding.constants and any(spec.reads_constants for spec in specs):
            splits["inputs"] = self.inputs.feeding.digest
        tools = {name: get_tool_version(name) for step in recipe.steps for name in get_tools(step)}
        return compute_candidate_key(
            recipe, source=self.inputs.model.digest, splits=splits, tools=tools
        )

    # ------------------------------------------------------------ measuring

    def score(self, candidate: Candidate, source: str) -> Candidate:
        """Add the accuracy in a place to a candidate, if it is measured, and its golden samples."""
        scored = self._score(candidate, source)
        if source != HOST:
            return scored
        made = get_golden_samples(self.inputs, candidate.model, self._statistics, self.tick)
        return replace(scored, golden=made.path, golden_note=made.note) if made else scored

    def _score(self, candidate: Candidate, source: str) -> Candidate:
        scoring, part = self.inputs.scoring, self.inputs.part
        if scoring is None or (part and source != HOST and not part.on_device):
            return self._add_measurement(candidate, source, None, ())
        question = self._compute_measurement_key(source, [candidate], candidate.model.digest)
        tally = self.inputs.store.recall_as("tallies", question, partial(decode, Tally))
        if tally is None:
            place = self._get_place(source)
            tally = score(
                place.agent,
                place.model_ref(candidate.model),
                place.samples(self.inputs.evaluation.samples),
                scoring=scoring,
                tick=lambda what, n, of: self.tick(f"{candidate.recipe.name}: {what}", n, of),
                dataset=self.inputs.evaluation,
                combination=part.with_model(candidate.model).to_job(
                    place.model_ref, sends_code=source != HOST
                )
                if part
                else None,
                sends_code=source != HOST and self.inputs.project.data.metric_on_device,
                unfinished=Unfinished(store=self.inputs.store, key=question),
            )
            self.inputs.store.remember("tallies", question, encode(tally))
        return self._add_measurement(candidate, source, tally, ())

    def time(self, candidates: Sequence[Candidate], source: str) -> list[Candidate]:
        """Add latencies and peak memory of one place to the candidates, timed in turn.

        All are timed in one run, whatever their runtime. Candidates that already fail, and those
        far behind after the first rounds, are left out of later rounds; the first one, the
        original, never is.
        """
        digests = [c.model.digest for c in candidates]
        racing = [c.model.digest for c in candidates if c.verdict is None or c.verdict.passes]
        timing = self.timing if source == HOST else self.device_timing
        plan = json.dumps([asdict(timing), racing])
        question = self._compute_measurement_key(
            source, candidates, *digests, plan, self.inputs.timing_samples.digest
        )
        kept = self.inputs.store.recall_as(
            "timings", question, lambda f: {d: [decode(Report, r) for r in f[d]] for d in digests}
        )
        if kept is not None:
            times = ((c, kept[c.model.digest]) for c in candidates)
            return [self._add_measurement(c, source, None, found) for c, found in times]
        place = self._get_place(source)
        found = time_interleaved(
            place.agent,
            {c.model.digest: place.model_ref(c.model) for c in candidates},
            place.samples(self.inputs.timing_samples.samples),
            dims=self.inputs.dims,
            timing=timing,
            racing=racing,
            tick=self.tick,
            here=source == HOST,
        )
        if not any(isinstance(reports, str) for reports in found.values()):
            kept_facts = {d: [encode(r) for r in reports] for d, reports in found.items()}
            self.inputs.store.remember("timings", question, kept_facts)
        return [self._add_timing(c, source, found[c.model.digest]) for c in candidates]

    def _add_timing(
        self, candidate: Candidate, source: str, found: Sequence[Report] | str
    ) -> Candidate:
        if isinstance(found, str):
            return replace(candidate, troubles=(*candidate.troubles, found))
        return self._add_measurement(candidate, source, None, found)

    def _add_measurement(
        self, candidate: Candidate, source: str, tally: Tally | None, reports: Sequence[Report]
    ) -> Candidate:
        """Replace a candidate's measurement of one place, keeping the parts that are not new."""
        old = candidate.get_measurement(source)
        if old is not None and not reports:
            fresh = replace(old, tally=tally, scores=self._compute_scores(tally))
        else:
            tally = tally or (old.tally if old else None)
            fresh = Measurement.from_reports(
                source,
                candidate.model,
                tally,
                reports,
                scores=self._compute_scores(tally),
                transferred=get_transfer_bytes(candidate.model, self.inputs.store, self.tick),
            )
        others = tuple(m for m in candidate.measurements if m.source != source)
        return replace(candidate, measurements=(*others, fresh))

    def _compute_scores(self, tally: Tally | None) -> tuple[Score, ...]:
        scoring = self.inputs.scoring
        return compute_scores(tally, scoring, self.inputs.groups) if tally and scoring else ()

    def _compute_measurement_key(
        self, source: str, candidates: Sequence[Candidate], *parts: str
    ) -> str:
        """Compute the key of a measurement from everything that decides it, such as the machine."""
        runtimes = sorted({get_runtime(c.model) for c in candidates})
        facts = [
            source,
            [self._identify_machine(source, runtime) for runtime in runtimes],
            *(
                self.inputs.evaluation.digest,
                self.inputs.scoring.digest if self.inputs.scoring else "",
                self.inputs.part.digest if self.inputs.part else "",
            ),
            self.inputs.profile.hardware.threads,
            *parts,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _identify_machine(self, source: str, runtime: RuntimeName) -> str:
        """Return a digest of machine and runtime, on which all measurements depend."""
        if source == HOST:
            return compute_host_identity(runtime)
        return self._get_place(source).identity(runtime)

    def check_reachable(self, source: str) -> None:
        """Check that models can be run in a place, before there are any.

        Raises:
            DeviceError: The device cannot be reached, or no runtime is available for it.
        """
        if source != HOST:
            self.find_missing_runtimes(source, self.inputs.runtimes.names, enough=1)

    def find_missing_runtimes(
        self, source: str, wanted: Iterable[RuntimeName], *, enough: int | None = None
    ) -> dict[RuntimeName, str]:
        """Return the runtimes that a device lacks and cannot install, each with the reason.

        Args:
            source: The device.
            wanted: Runtimes that candidates need.
            enough: Stop after this number of working runtimes.

        Raises:
            DeviceError: No runtime is available, or the device is gone.
            PipMissing: No runtime is available, and there is no pip to download one with.
        """
        failed: dict[RuntimeName, DeviceError | PipMissing] = {}
        working = 0
        for name in wanted:
            try:
                self._get_place(source).identity(name)
            except (DeviceError, PipMissing) as error:
                if getattr(error, "transient", False) or source not in self._places:
                    raise
                failed[name] = error
                continue
            working += 1
            if working == enough:
                break
        if not working and failed:
            raise next(iter(failed.values()))
        return {name: error.message for name, error in failed.items()}

    def _get_place(self, source: str) -> Place:
        if source not in self._places:
            self._places[source] = self._stack.enter_context(self._open_place(source))
        return self._places[source]

    def _open_place(self, source: str) -> AbstractContextManager[Place]:
        inputs = self.inputs
        if source == HOST:
            return open_host_place(inputs.profile, inputs.store.root / "host")
        return open_device(
            source.removeprefix("device:"),
            inputs.profile,
            root=inputs.store.root,
            tick=self.tick,
            home=profile_home(inputs.profile),
            same_machine=True,
        )
