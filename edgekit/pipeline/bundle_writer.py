"""Writer of the bundle of a build: model, golden samples, manifest, lock file and bundle file."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from edgekit.bundle.bundle_file import encode_signature, write_bundle
from edgekit.bundle.folder_names import hide_folders
from edgekit.bundle.manifest import (
    GOLDEN_SAMPLES,
    LOCK,
    MANIFEST,
    MODELS,
    PACKED,
    SIGNATURE,
    SUFFIX,
    TOKENIZER,
    BundledFile,
    Manifest,
    RuntimeUse,
    StorageVariant,
    Tensor,
    encode_manifest,
)
from edgekit.bundle.manifest_versions import OLD_GOLDEN_SAMPLES
from edgekit.bundle.packing import TransferData, encode_for_transfer
from edgekit.bundle.results import Build, Candidate
from edgekit.compression.all_passes import get_tools
from edgekit.config.profile import get_runtime
from edgekit.config.project import MetricOptionsTable
from edgekit.errors import EdgekitError
from edgekit.metrics.comparison import Comparison
from edgekit.model import TensorSpec
from edgekit.pass_settings import QuantizeWeights
from edgekit.pipeline.application_settings import describe_application, read_tokenizer
from edgekit.pipeline.measure_targets import HOST, PACKAGES
from edgekit.pipeline.request import BuildInputs
from edgekit.pipeline.results_writer import Compared, describe_machine
from edgekit.progress import Tick
from edgekit.recipe import Step
from edgekit.remote.upload import COMMANDS_BYTES, count_wire_bytes
from edgekit.version import __version__
from edgekit_agent.codec import encode
from edgekit_agent.files import write_atomic
from edgekit_agent.worker_results import Latency

# Placeholder with figures as long as those of a timed candidate.
_UNTIMED = (Latency((1.2345678, 1.3456789, 1.4567891), 40, 40, 3.5),)


def pack_bundle(
    inputs: BuildInputs, found: Build, candidate: Candidate, compared: Compared, tick: Tick
) -> Manifest:
    """Write the candidate as the bundle of this build and return the manifest.

    The old manifest is removed first and the new one is written last, so that the folder holds a
    complete bundle or none.
    """
    out, golden = inputs.out, candidate.golden
    if golden is None:
        raise EdgekitError(f"{candidate.recipe.name} has no golden samples")
    for name in (MANIFEST, SIGNATURE):
        (out / name).unlink(missing_ok=True)
    model_name = f"model.{candidate.model.format}"
    members = {
        model_name: candidate.model.path.read_bytes(),
        GOLDEN_SAMPLES: golden.read_bytes(),
        **read_tokenizer(inputs),
    }
    sent = encode_for_transfer(members[model_name], partial(tick, "packing"))
    files = tuple(
        _describe_file(name, data, sent if name == model_name else None)
        for name, data in members.items()
    )
    variants = tuple(
        _build_variant(c, chosen=c is candidate) for c in _iter_same_weights(found, candidate)
    )
    manifest = _build_manifest(
        inputs,
        candidate,
        files=files,
        compared=compared[candidate.key],
        passes=candidate is found.chosen,
        variants=variants,
    )
    text = encode_manifest(manifest)
    for name, data in members.items():
        write_atomic(str(out / name), data)
    lock = _collect_provenance(inputs, candidate) | {"recipe": _encode_recipe(candidate)}
    write_atomic(str(out / LOCK), json.dumps(lock, indent=1, sort_keys=True).encode() + b"\n")
    if sent.encoding == "packed":
        del members[model_name]
        members[model_name + PACKED] = sent.data
    signed = {}
    if inputs.signer is not None:
        signed[SIGNATURE] = encode_signature(inputs.signer.sign(manifest, text))
        write_atomic(str(out / SIGNATURE), signed[SIGNATURE])
    write_bundle(out / f"{inputs.profile.name}{SUFFIX}", members | signed | {MANIFEST: text})
    for stale in {*MODELS, OLD_GOLDEN_SAMPLES, TOKENIZER} - {model_name, *members}:
        (out / stale).unlink(missing_ok=True)
    write_atomic(str(out / MANIFEST), text)
    return manifest


def estimate_overhead_bytes(
    inputs: BuildInputs, candidate: Candidate, compared: Comparison | None
) -> int:
    """Compute the bytes that an update sends besides the model: manifest, golden samples, commands.

    The manifest does not exist yet; it is estimated with figures and digests of the same length.
    """
    if candidate.golden is None:
        return 0
    model, golden = candidate.model, candidate.golden.read_bytes()
    beside = read_tokenizer(inputs)
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
        _describe_file(GOLDEN_SAMPLES, golden, None),
        *(_describe_file(name, data, None) for name, data in beside.items()),
    )
    manifest = _build_manifest(
        inputs,
        timed,
        files=files,
        compared=compared,
        passes=True,
        variants=(_build_variant(timed, chosen=True),),
    )
    text = encode_manifest(manifest)
    signed = encode_signature(inputs.signer.sign(manifest, text)) if inputs.signer else b""
    # The signature is sent twice: before anything else, and again with the job.
    sent = len(golden) + sum(map(count_wire_bytes, beside.values())) + count_wire_bytes(text)
    return sent + COMMANDS_BYTES + 2 * len(signed)


def _build_manifest(
    inputs: BuildInputs,
    candidate: Candidate,
    *,
    files: tuple[BundledFile, ...],
    compared: Comparison | None,
    passes: bool,
    variants: tuple[StorageVariant, ...],
) -> Manifest:
    host = candidate.get_measurement(HOST)
    return Manifest(
        name=inputs.profile.name,
        model=f"model.{candidate.model.format}",
        format=candidate.model.format,
        source_digest=inputs.model.digest,
        inputs=tuple(_to_tensor(t) for t in candidate.model.signature.inputs),
        outputs=tuple(_to_tensor(t) for t in candidate.model.signature.outputs),
        **_describe_scoring(inputs),
        runtime=RuntimeUse(
            name=get_runtime(candidate.model),
            version=host.runtime_version if host else "",
            threads=inputs.profile.hardware.threads,
        ),
        profile=inputs.profile,
        files=files,
        golden_kind=inputs.project.golden.samples,
        recipe=_encode_recipe(candidate),
        provenance=_collect_provenance(inputs, candidate),
        measurements=[to_jsonable_python(m.summary()) for m in candidate.measurements],
        verdict=json.loads(
            hide_folders(
                json.dumps(_encode_verdict(candidate) | _encode_comparison(compared)),
                out=inputs.out,
                cache=inputs.store.root,
            )
        ),
        passes=passes,
        variants=variants,
        **describe_application(inputs),
    )


def _describe_scoring(inputs: BuildInputs) -> dict[str, Any]:
    """Return how samples become the value of the metric.

    A model that is combined with others has no metric of its own.
    """
    if inputs.part:
        return {"metric": "", "output": None}
    scoring = inputs.scoring
    postprocess = scoring.postprocess if scoring else None
    return {
        "metric": inputs.metric,
        "output": inputs.output,
        "metric_options": _get_metric_options(inputs),
        "guards": scoring.names[1:] if scoring else (),
        "postprocess": encode(postprocess) if postprocess else None,
        "preprocess": inputs.project.data.preprocess,
    }


def _get_metric_options(inputs: BuildInputs) -> MetricOptionsTable:
    """Return the options of the gated metric as they were used, with what was found by itself."""
    if inputs.scoring is None:
        return inputs.project.data.metric_options
    return MetricOptionsTable.from_options(inputs.scoring.metrics[0].options)


def _iter_same_weights(found: Build, candidate: Candidate) -> Iterator[Candidate]:
    """Yield the candidates with the same low-bit weights, including the candidate itself."""
    own = _find_weight_step(candidate)
    for other in found.candidates:
        if other is candidate or (own is not None and _find_weight_step(other) == own):
            yield other


def _find_weight_step(candidate: Candidate) -> Step | None:
    return next(
        (s for s in candidate.recipe.steps if isinstance(s.settings, QuantizeWeights)), None
    )


def _build_variant(candidate: Candidate, *, chosen: bool) -> StorageVariant:
    sizes = candidate.measurements[0]
    timed = [m for m in candidate.measurements if m.latency]
    last = timed[-1] if timed else None  # that of the device comes after that of the host
    times = last.times if last else None
    return StorageVariant(
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


def _to_tensor(spec: TensorSpec) -> Tensor:
    return Tensor(name=spec.name, dtype=spec.dtype, shape=spec.shape)


def _describe_file(name: str, data: bytes, sent: TransferData | None) -> BundledFile:
    return BundledFile(
        name=name,
        digest=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        transfer_bytes=len(sent.data) if sent else None,
        encoding=sent.encoding if sent else None,
    )


def _encode_recipe(candidate: Candidate) -> dict[str, Any]:
    recipe = candidate.recipe
    steps = [step.as_json() for step in recipe.steps]
    return {"name": recipe.name, "seed": recipe.seed, "steps": steps, "key": candidate.key}


def _collect_provenance(inputs: BuildInputs, candidate: Candidate) -> dict[str, Any]:
    tools = {t for step in candidate.recipe.steps for t in get_tools(step)}
    tools.add(PACKAGES[get_runtime(candidate.model)])
    splits = {"evaluation": inputs.evaluation.digest}
    if inputs.calibration is not None:
        splits["calibration"] = inputs.calibration.digest
    part = inputs.part
    pipeline = {"pipeline": {"run": part.combined.run, "model": part.name}} if part else {}
    return {
        **pipeline,
        "edgekit": __version__,
        "python": platform.python_version(),
        "tools": {name: version(name) for name in sorted(tools | {"onnxruntime"})},
        "source": _describe_source(inputs),
        "model": {"sha256": candidate.model.digest, "bytes": candidate.model.bytes},
        "data": splits,
        "seed": inputs.seed,
        "machine": describe_machine(),
    }


def _describe_source(inputs: BuildInputs) -> dict[str, Any]:
    """Describe the source model; for a converted model, also the tool and its versions."""
    origin = inputs.model.origin
    if origin is None:
        return {"file": inputs.model.path.name, "sha256": inputs.model.digest}
    return {
        "file": Path(origin.given).name,
        "sha256": origin.digest,
        "converted": {
            "tool": origin.tool,
            "versions": origin.versions,
            "sha256": inputs.model.digest,
        },
    }


def _encode_verdict(candidate: Candidate) -> dict[str, Any]:
    return asdict(candidate.verdict) if candidate.verdict else {}


def _encode_comparison(compared: Comparison | None) -> dict[str, Any]:
    """Return a comparison for the manifest, without the numbers of samples that devices lack."""
    return {"comparison": asdict(replace(compared, changed=()))} if compared else {}
