"""Terms of the search of a build."""

from __future__ import annotations

from edgekit.compatibility.runtimes import get_lite_target
from edgekit.config.profile import choose_weight_bits
from edgekit.pipeline.request import BuildInputs
from edgekit.pipeline.search.recipes import Terms


def build_terms(inputs: BuildInputs) -> Terms:
    """Return the terms of the search for checked inputs."""
    free = {name for _, _, name in inputs.feeding.iter_free_axes(inputs.model.signature)}
    return Terms(
        source=inputs.model.format,
        formats=inputs.runtimes.formats,
        weight_bits=choose_weight_bits(inputs.profile) if "onnx" in inputs.runtimes.formats else 8,
        seed=inputs.seed,
        dims=tuple(sorted((n, size) for n, size in inputs.dims.items() if n in free)),
        target=get_lite_target(inputs.profile),
        remakes=bool(inputs.runtimes.obstacles),
        minutes=inputs.learning.minutes if inputs.calibration else 0.0,
        attempts=inputs.learning.attempts,
    )
