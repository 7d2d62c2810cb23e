"""Notes on the figures of a build."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.bundle.manifest import MANIFEST
from edgekit.bundle.results import Build
from edgekit.compatibility.runtimes import get_lite_target
from edgekit.compression.pass_specs import TENSORFLOW
from edgekit.onnx_graph.rewrites.prepare import QUANTIZED_ALREADY
from edgekit.pipeline.request import BuildInputs
from edgekit.pipeline.search.build_terms import build_terms
from edgekit.pipeline.search.recovery import propose_recovery
from edgekit.pipeline.tool_versions import is_installed


def iter_stale_notes(inputs: BuildInputs) -> Iterator[str]:
    """Yield a note if the folder still has the bundle of an earlier build."""
    if (inputs.out / MANIFEST).exists():
        yield (
            f"{inputs.out} still contains the bundle of an earlier build, which 'edgekit push' "
            "would install"
        )


def iter_notes(inputs: BuildInputs, found: Build) -> Iterator[str]:
    """Yield the notes of runtimes, conversion, samples, metric and passes."""
    yield from inputs.runtimes.notes
    if inputs.model.origin:
        yield from inputs.model.origin.notes
    splits = [s for s in (inputs.evaluation, inputs.calibration) if s is not None]
    yield from dict.fromkeys(note for split in splits for note in split.notes)
    yield from inputs.notes
    if any(rejected.quantized for rejected in found.rejected):
        yield f"{QUANTIZED_ALREADY}; it was not compressed further"
    yield from _iter_golden_notes(inputs, found)
    yield from _iter_litert_notes(inputs, found)
    yield from _iter_learning_notes(inputs, found)


def _iter_golden_notes(inputs: BuildInputs, found: Build) -> Iterator[str]:
    if inputs.project.golden.samples == "calibration":
        yield (
            "the golden samples are coarse copies of two samples, which the bundle takes to "
            'devices ([golden] samples = "calibration")'
        )
    if found.shown_candidate.golden_note:
        yield found.shown_candidate.golden_note


def _iter_litert_notes(inputs: BuildInputs, found: Build) -> Iterator[str]:
    lite = [c for c in found.candidates if c.model.format == "tflite"]
    if lite and get_lite_target(inputs.profile) == "tflite-runtime" and inputs.on is None:
        yield (
            f"{inputs.profile.name} runs tflite-runtime, but here its files were scored with "
            "ai-edge-litert, and speed and memory are those of this machine"
        )


def _iter_learning_notes(inputs: BuildInputs, found: Build) -> Iterator[str]:
    """Yield a note if a candidate could learn, but TensorFlow is missing."""
    if found.chosen or inputs.recipe or is_installed(TENSORFLOW):
        return
    if propose_recovery((*found.candidates, *found.rejected), build_terms(inputs)):
        yield "pip install 'edgekit[tensorflow]' lets build recover accuracy by learning"
