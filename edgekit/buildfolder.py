"""Write build/NAME: the model, its canaries, the manifest, results, and the lock."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from edgekit import __version__
from edgekit.bundle import (
    CANARIES,
    LOCK,
    MANIFEST,
    PACKED,
    SUFFIX,
    BundledFile,
    Form,
    Manifest,
    RuntimeUse,
    Tensor,
    manifest_text,
    write_bundle,
)
from edgekit.compare import Comparison
from edgekit.data import Dataset
from edgekit.intake import Intake
from edgekit.model import TensorSpec
from edgekit.packing import Travelling, travelling
from edgekit.passes import PASSES
from edgekit.places import HOST, PACKAGES, host_threads
from edgekit.progress import Tick, silent
from edgekit.recipe import QuantizeWeights, Step
from edgekit.results import Build, Candidate, Rejected
from edgekit.resultsfile import BuildLine, CandidateLine, ModelFacts, RejectedLine, append
from edgekit.runtimes import runtime_of
from edgekit.sequences import with_states
from edgekit_agent.feeds import batch_size, batches
from edgekit_agent.files import write_whole
from edgekit_agent.runtimes import import_runtime

# A few samples are enough to see whether a device computes what the host computed, and they
# travel with the model: at most so many, and no more than so many bytes, nor than a share of the
# model's, if two will do.
_MOST_CANARIES = 8
_MOST_CANARY_BYTES, _CANARY_SHARE = 1 << 20, 4

Compared = Mapping[str, Comparison]


def append_results(
    intake: Intake, found: Build, compared: Compared, *, packed: Candidate | None
) -> None:
    """Add this build's lines to results.jsonl: raw values of every candidate.

    Args:
        intake: the inputs of the build.
        found: what it found.
        compared: each candidate against the original, by the candidate's key.
        packed: the candidate that goes into the bundle, if any does.
    """
    intake.out.mkdir(parents=True, exist_ok=True)
    candidates = (
        _candidate_line(c, found, compared[c.key], is_packed=c is packed) for c in found.candidates
    )
    rejected = (_rejected_line(r) for r in found.rejected)
    append(intake.out, [_build_line(intake), *candidates, *rejected])


def pack(
    intake: Intake, found: Build, candidate: Candidate, compared: Compared, tick: Tick
) -> Manifest:
    """Lay the candidate down as the bundle of this build.

    The manifest goes first and comes last, so that the folder is a whole bundle or none.
    """
    out = intake.out
    (out / MANIFEST).unlink(missing_ok=True)
    model_name = f"model.{candidate.model.format}"
    members = {
        model_name: candidate.model.path.read_bytes(),
        CANARIES: _canaries(intake, candidate),
    }
    sent = travelling(members[model_name], partial(tick, "packing"))
    manifest = _manifest(intake, found, candidate, members, sent, compared[candidate.key])
    text = manifest_text(manifest)
    for name, data in members.items():
        write_whole(str(out / name), data)
    lock = _provenance(intake, candidate) | {"recipe": _recipe(candidate)}
    write_whole(str(out / LOCK), json.dumps(lock, indent=1, sort_keys=True).encode() + b"\n")
    if sent.encoding == "packed":
        del members[model_name]
        members[model_name + PACKED] = sent.data
    write_bundle(out / f"{intake.profile.name}{SUFFIX}", members | {MANIFEST: text})
    for stale in {"model.onnx", "model.tflite"} - {model_name}:
        (out / stale).unlink(missing_ok=True)
    write_whole(str(out / MANIFEST), text)
    return manifest


def _manifest(
    intake: Intake,
    found: Build,
    candidate: Candidate,
    members: Mapping[str, bytes],
    sent: Travelling,
    compared: Comparison,
) -> Manifest:
    host = candidate.measured(HOST)
    return Manifest(
        name=intake.profile.name,
        model=f"model.{candidate.model.format}",
        format=candidate.model.format,
        source_digest=intake.model.digest,
        inputs=tuple(_tensor(t) for t in candidate.model.signature.inputs),
        outputs=tuple(_tensor(t) for t in candidate.model.signature.outputs),
        metric=intake.metric,
        output=intake.output,
        preprocess=intake.project.data.preprocess,
        runtime=RuntimeUse(
            name=runtime_of(candidate.model),
            version=host.runtime_version if host else "",
            threads=intake.profile.hardware.threads,
        ),
        profile=intake.profile,
        files=tuple(
            _bundled(name, data, None if name == CANARIES else sent)
            for name, data in members.items()
        ),
        recipe=_recipe(candidate),
        provenance=_provenance(intake, candidate),
        measurements=[to_jsonable_python(m.summary()) for m in candidate.measurements],
        verdict=_verdict(candidate) | {"comparison": asdict(compared)},
        passes=candidate is found.chosen,
        forms=tuple(_form(c, chosen=c is candidate) for c in _same_weights(found, candidate)),
    )


def _same_weights(found: Build, candidate: Candidate) -> Iterator[Candidate]:
    """Candidates made of the same low-bit weights; the candidate itself is one."""
    own = _weights(candidate)
    for other in found.candidates:
        if other is candidate or (own is not None and _weights(other) == own):
            yield other


def _weights(candidate: Candidate) -> Step | None:
    return next(
        (s for s in candidate.recipe.steps if isinstance(s.settings, QuantizeWeights)), None
    )


def _form(candidate: Candidate, *, chosen: bool) -> Form:
    sizes = candidate.measurements[0]
    timed = [m for m in candidate.measurements if m.latency]
    last = timed[-1] if timed else None  # the device's comes after the host's
    times = last.times if last else None
    return Form(
        name=candidate.recipe.name,
        disk_bytes=sizes.model_bytes,
        transfer_bytes=sizes.transfer_bytes,
        encoding="packed" if sizes.transfer_bytes < sizes.model_bytes else "raw",
        peak_rss_bytes=last.peak_rss_bytes if last else None,
        latency_p50_ms=times.p50_ms if times else None,
        latency_p95_ms=times.p95_ms if times else None,
        source=last.source if last else None,
        chosen=chosen,
    )


def _tensor(spec: TensorSpec) -> Tensor:
    return Tensor(name=spec.name, dtype=spec.dtype, shape=spec.shape)


def _bundled(name: str, data: bytes, sent: Travelling | None) -> BundledFile:
    return BundledFile(
        name=name,
        digest=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        transfer_bytes=len(sent.data) if sent else None,
        encoding=sent.encoding if sent else None,
    )


def _canaries(intake: Intake, candidate: Candidate) -> bytes:
    """A few samples with the outputs this model gives here, for the device to repeat.

    Calibration samples where there are any, as the bundle may lie on many devices.
    """
    split = intake.calibration or _completed(intake)
    split = split.first(_canary_count(split, candidate.model.bytes))
    load = import_runtime(runtime_of(candidate.model))
    loaded = load(str(candidate.model.path), host_threads(intake.profile))
    batch = batch_size(split.samples, loaded.inputs) or 1
    axes = {column.name: column.axis for column in split.samples.columns}
    arrays: dict[str, list[Any]] = {}
    for part in batches(split.samples, loaded.inputs, batch):
        for name, axis in axes.items():
            rows = part.inputs[name][None] if axis < 0 else np.moveaxis(part.inputs[name], axis, 0)
            arrays.setdefault(f"input:{name}", []).append(rows[: part.rows])
        constants = {name: part.inputs[name] for name in part.inputs.keys() - axes.keys()}
        for name, value in loaded.run(part.inputs).items():
            rows = value[: part.rows] if value.shape[:1] == (batch,) else value[None]
            arrays.setdefault(f"output:{name}", []).append(rows)
    buffer = BytesIO()
    joined = {name: np.concatenate(parts) for name, parts in sorted(arrays.items())}
    joined |= {f"axis:{name}": np.array([axis]) for name, axis in sorted(axes.items()) if axis}
    joined |= {f"constant:{name}": value[None] for name, value in sorted(constants.items())}
    np.savez_compressed(buffer, **joined)  # type: ignore[arg-type]
    return buffer.getvalue()


def _completed(intake: Intake) -> Dataset:
    """The evaluation samples, with the states that the original hands on."""
    split = intake.evaluation
    if not split.samples.states:
        return split
    return with_states(
        split, intake.model, dims=intake.feeding.dims, cache=intake.store.root, tick=silent
    )


def _canary_count(split: Dataset, model_bytes: int) -> int:
    floats = 4  # bytes; what images and most else become before a model sees them
    sample = sum(math.prod(c.shape[1:]) * floats for c in split.samples.columns)
    most = min(_MOST_CANARY_BYTES, model_bytes // _CANARY_SHARE)
    return max(2, min(_MOST_CANARIES, most // max(sample, 1)))


def _recipe(candidate: Candidate) -> dict[str, Any]:
    recipe = candidate.recipe
    steps = [step.as_json() for step in recipe.steps]
    return {"name": recipe.name, "seed": recipe.seed, "steps": steps, "key": candidate.key}


def _provenance(intake: Intake, candidate: Candidate) -> dict[str, Any]:
    tools = {t for step in candidate.recipe.steps for t in PASSES[step.name].tools}
    tools.add(PACKAGES[runtime_of(candidate.model)])
    splits = {"evaluation": intake.evaluation.digest}
    if intake.calibration is not None:
        splits["calibration"] = intake.calibration.digest
    return {
        "edgekit": __version__,
        "python": platform.python_version(),
        "tools": {name: version(name) for name in sorted(tools | {"onnxruntime"})},
        "source": _source(intake),
        "model": {"sha256": candidate.model.digest, "bytes": candidate.model.bytes},
        "data": splits,
        "seed": intake.seed,
        "machine": _machine(),
    }


def _source(intake: Intake) -> dict[str, Any]:
    """The model that was built; where it was converted, also from what and by what."""
    origin = intake.model.origin
    if origin is None:
        return {"file": intake.model.path.name, "sha256": intake.model.digest}
    return {
        "file": Path(origin.given).name,
        "sha256": origin.digest,
        "converted": {
            "tool": origin.tool,
            "versions": origin.versions,
            "sha256": intake.model.digest,
        },
    }


def _verdict(candidate: Candidate) -> dict[str, Any]:
    return asdict(candidate.verdict) if candidate.verdict else {}


def _build_line(intake: Intake) -> BuildLine:
    return BuildLine(
        kind="build",
        id=secrets.token_hex(8),
        started=datetime.now(UTC),
        device=intake.profile.name,
        source_digest=intake.model.digest,
        machine=_machine(),
    )


def _machine() -> dict[str, str]:
    return {"arch": platform.machine(), "system": platform.platform()}


def _candidate_line(
    candidate: Candidate, found: Build, compared: Comparison, *, is_packed: bool
) -> CandidateLine:
    model = candidate.model
    return CandidateLine(
        kind="candidate",
        key=candidate.key,
        name=candidate.recipe.name,
        steps=tuple(step.as_json() for step in candidate.recipe.steps),
        seed=candidate.recipe.seed,
        model=ModelFacts(digest=model.digest, bytes=model.bytes, format=model.format),
        measurements=candidate.measurements,
        comparison=compared,
        verdict=candidate.verdict,
        chosen=candidate is found.chosen,
        packed=is_packed,
        baseline=candidate is found.baseline,
        layers=candidate.layers,
        notes=candidate.notes,
    )


def _rejected_line(rejected: Rejected) -> RejectedLine:
    return RejectedLine(
        kind="rejected", name=rejected.recipe.name, reason=rejected.reason, hint=rejected.hint
    )
