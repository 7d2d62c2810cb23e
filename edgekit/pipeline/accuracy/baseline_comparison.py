"""Comparison of the candidates of a build with its original."""

from __future__ import annotations

from edgekit.bundle.results import Build, Candidate
from edgekit.errors import EdgekitError
from edgekit.metrics.comparison import Comparison
from edgekit.pipeline.accuracy.comparison import add_details, compare_tallies
from edgekit.pipeline.measure_targets import HOST
from edgekit.pipeline.request import BuildInputs
from edgekit.pipeline.results_writer import Compared
from edgekit_agent.worker_results import Tally


def compare_all(inputs: BuildInputs, found: Build) -> Compared:
    """Compare every candidate with the original, and the shown one on slices and classes too."""
    compared = {c.key: compare_with_original(inputs, c, found.baseline) for c in found.candidates}
    shown = found.shown_candidate
    whole, tally = compared[shown.key], shown.tally
    reference = get_reference(inputs, found.baseline)
    if whole is None or tally is None or reference is None or inputs.scoring is None:
        return compared
    detailed = add_details(
        whole,
        reference,
        tally,
        job=inputs.scoring.metrics[0],
        margin=inputs.limits.margins[0],
        evaluation=inputs.evaluation,
        class_names=inputs.class_names,
    )
    return {**compared, shown.key: detailed}


def compare_with_original(
    inputs: BuildInputs, candidate: Candidate, baseline: Candidate
) -> Comparison | None:
    """Compare a candidate with the original on the same samples; ``None`` if none are scored.

    The original is scored on this machine, as the device may be too small for it; the candidate's
    answers are those of the device if it was scored there.

    Raises:
        EdgekitError: One of them was not scored.
    """
    if inputs.scoring is None:
        return None
    reference, tally = get_reference(inputs, baseline), candidate.tally
    if reference is None or tally is None:
        raise EdgekitError(f"no accuracy was measured for {candidate.recipe.name} or the original")
    return compare_tallies(
        reference,
        tally,
        scoring=inputs.scoring,
        margins=inputs.limits.margins,
        evaluation=inputs.evaluation,
        same_model=_is_reference(inputs, candidate, baseline),
        seed=inputs.seed,
    )


def get_reference(inputs: BuildInputs, baseline: Candidate) -> Tally | None:
    """Return the statistics of the original, or of all originals combined, on this machine."""
    if inputs.part and inputs.part.reference:
        return inputs.part.reference
    host = baseline.get_measurement(HOST)
    return host.tally if host else None


def _is_reference(inputs: BuildInputs, candidate: Candidate, baseline: Candidate) -> bool:
    """Return whether a candidate is what it is compared with."""
    is_original = candidate.model.digest == baseline.model.digest
    return is_original and not (inputs.part and inputs.part.reference)
