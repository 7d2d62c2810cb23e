"""Writer of build/NAME: model, golden samples, manifest, results and lock file."""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from edgekit import __version__
from edgekit.bundle import (
    CANARIES,
    LOCK,
    MANIFEST,
    PACKED,
    SIGNATURE,
    SUFFIX,
    BundledFile,
    Form,
    Manifest,
    RuntimeUse,
    Tensor,
    manifest_text,
    signature_text,
    write_bundle,
)
from edgekit.compare import Comparison
from edgekit.errors import EdgekitError
from edgekit.intake import Intake
from edgekit.model import TensorSpec
from edgekit.packing import Travelling, travelling
from edgekit.passes import PASSES
from edgekit.places import HOST, PACKAGES
from edgekit.profile import runtime_of
from edgekit.progress import Tick
from edgekit.recipe import QuantizeWeights, Step
from edgekit.remote.sending import COMMANDS_BYTES, wire_bytes
from edgekit.results import Build, Candidate, Rejected
from edgekit.resultsfile import BuildLine, CandidateLine, ModelFacts, RejectedLine, append
from edgekit_agent.files import write_whole
from edgekit_agent.results import Latency

# Placeholder with figures as long as those of a timed candidate.
_UNTIMED = (Latency((1.2345678, 1.3456789, 1.4567891), 40, 40, 3.5),)

Compared = Mapping[str, Comparison]


def append_results(
    intake: Intake, found: Build, compared: Compared, *, packed: Candidate | None
) -> None:
    """Append the raw values of every candidate of this build to results.jsonl.

    Args:
        intake: The inputs of the build.
        found: The result of the build.
        compared: Comparison of each candidate with the original, by the candidate's key.
        packed: The candidate that goes into the bundle, if any.
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
    """Write the candidate as the bundle of this build and return the manifest.

    The old manifest is removed first and the new one is written last, so that the folder holds a
    complete bundle or none.
    """
    out, golden = intake.out, candidate.golden
    if golden is None:
        raise EdgekitError(f"{candidate.recipe.name} has no golden samples")
    for name in (MANIFEST, SIGNATURE):
        (out / name).unlink(missing_ok=True)
    model_name = f"model.{candidate.model.format}"
    members = {
        model_name: candidate.model.path.read_bytes(),
        CANARIES: golden.read_bytes(),
    }
    sent = travelling(members[model_name], partial(tick, "packing"))
    files = tuple(
        _bundled(name, data, None if name == CANARIES else sent) for name, data in members.items()
    )
    forms = tuple(_form(c, chosen=c is candidate) for c in _same_weights(found, candidate))
    manifest = _manifest(
        intake,
        candidate,
        files=files,
        compared=compared[candidate.key],
        passes=candidate is found.chosen,
        forms=forms,
    )
    text = manifest_text(manifest)
    for name, data in members.items():
        write_whole(str(out / name), data)
    lock = _provenance(intake, candidate) | {"recipe": _recipe(candidate)}
    write_whole(str(out / LOCK), json.dumps(lock, indent=1, sort_keys=True).encode() + b"\n")
    if sent.encoding == "packed":
        del members[model_name]
        members[model_name + PACKED] = sent.data
    signed = {}
    if intake.signer is not None:
        signed[SIGNATURE] = signature_text(intake.signer.sign(manifest, text))
        write_whole(str(out / SIGNATURE), signed[SIGNATURE])
    write_bundle(out / f"{intake.profile.name}{SUFFIX}", members | signed | {MANIFEST: text})
    for stale in {"model.onnx", "model.tflite"} - {model_name}:
        (out / stale).unlink(missing_ok=True)
    write_whole(str(out / MANIFEST), text)
    return manifest


def overhead_bytes(intake: Intake, candidate: Candidate, compared: Comparison) -> int:
    """Compute the bytes that an update sends besides the model: manifest, golden samples, commands.

    The manifest does not exist yet; it is estimated with figures and digests of the same length.
    """
    if candidate.golden is None:
        return 0
    model, golden = candidate.model, candidate.golden.read_bytes()
    sizes = candidate.measurements[0]
    timed = candidate
    if not sizes.latency:
        first = replace(sizes, latency=_UNTIMED, peak_rss_bytes=1 << 26)
        timed = replace(candidate, measurements=(first, *candidate.measurements[1:]))
    files = (
        BundledFile(
            name=f"model.{model.format}",
            digest=model.digest,
            bytes=model.bytes,
            transfer_bytes=sizes.transfer_bytes,
            encoding="packed",
        ),
        _bundled(CANARIES, golden, None),
    )
    manifest = _manifest(
        intake,
        timed,
        files=files,
        compared=compared,
        passes=True,
        forms=(_form(timed, chosen=True),),
    )
    text = manifest_text(manifest)
    signed = signature_text(intake.signer.sign(manifest, text)) if intake.signer else b""
    # The signature is sent twice: before anything else, and again with the job.
    return len(golden) + wire_bytes(text) + COMMANDS_BYTES + 2 * len(signed)


def _manifest(
    intake: Intake,
    candidate: Candidate,
    *,
    files: tuple[BundledFile, ...],
    compared: Comparison,
    passes: bool,
    forms: tuple[Form, ...],
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
        files=files,
        recipe=_recipe(candidate),
        provenance=_provenance(intake, candidate),
        measurements=[to_jsonable_python(m.summary()) for m in candidate.measurements],
        verdict=_verdict(candidate) | {"comparison": asdict(compared)},
        passes=passes,
        forms=forms,
    )


def _same_weights(found: Build, candidate: Candidate) -> Iterator[Candidate]:
    """Yield the candidates with the same low-bit weights, including the candidate itself."""
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
    last = timed[-1] if timed else None  # that of the device comes after that of the host
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
    """Describe the source model; for a converted model, also the tool and its versions."""
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
        nearest=found.chosen is None and candidate is found.nearest,
        packed=is_packed,
        baseline=candidate is found.baseline,
        layers=candidate.layers,
        notes=candidate.notes,
    )


def _rejected_line(rejected: Rejected) -> RejectedLine:
    return RejectedLine(
        kind="rejected", name=rejected.recipe.name, reason=rejected.reason, hint=rejected.hint
    )
