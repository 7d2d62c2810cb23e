"""Writer of results.jsonl: the lines of a build with all candidates and rejected recipes."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from edgekit.bundle.folder_names import hide_folders
from edgekit.bundle.results import Build, Candidate, Rejection
from edgekit.metrics.comparison import Comparison
from edgekit.pipeline.request import BuildInputs
from edgekit.pipeline.results_log import (
    BuildLine,
    CandidateLine,
    ModelFacts,
    RejectedLine,
    append_lines,
)
from edgekit.pipeline.search.recipe_names import format_method

Compared = Mapping[str, Comparison | None]


def append_results(
    inputs: BuildInputs, found: Build, compared: Compared, *, packed: Candidate | None
) -> str:
    """Append the raw values of every candidate of this build to results.jsonl.

    Args:
        inputs: The inputs of the build.
        found: The result of the build.
        compared: Comparison of each candidate with the original, by the candidate's key.
        packed: The candidate that goes into the bundle, if any.

    Returns:
        The id of the build.
    """
    inputs.out.mkdir(parents=True, exist_ok=True)
    candidates = (
        _make_candidate_line(c, found, compared[c.key], is_packed=c is packed)
        for c in found.candidates
    )
    rejected = (_make_rejected_line(r) for r in found.rejected)
    first = _make_build_line(inputs)
    append_lines(
        inputs.out,
        [first, *candidates, *rejected],
        change=partial(hide_folders, out=inputs.out, cache=inputs.store.root),
    )
    return first.id


def _make_build_line(inputs: BuildInputs) -> BuildLine:
    return BuildLine(
        kind="build",
        id=secrets.token_hex(8),
        started=datetime.now(UTC),
        device=inputs.profile.name,
        source_digest=inputs.model.digest,
        machine=describe_machine(),
    )


def describe_machine() -> dict[str, str]:
    """Return architecture and system of this machine."""
    return {"arch": platform.machine(), "system": platform.platform()}


def _make_candidate_line(
    candidate: Candidate, found: Build, compared: Comparison | None, *, is_packed: bool
) -> CandidateLine:
    model = candidate.model
    return CandidateLine(
        kind="candidate",
        key=candidate.key,
        name=candidate.recipe.name,
        method=format_method(candidate.recipe.steps),
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


def _make_rejected_line(rejected: Rejection) -> RejectedLine:
    return RejectedLine(
        kind="rejected", name=rejected.recipe.name, reason=rejected.reason, hint=rejected.hint
    )
