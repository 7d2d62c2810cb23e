"""Refusals of passes as rows of a build, and as facts in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.bundle.results import Rejection
from edgekit.errors import PassRefused
from edgekit.recipe import Recipe


def make_rejection(recipe: Recipe, refusal: PassRefused) -> Rejection:
    """Make the rejection of a recipe one of whose passes refuses the model."""
    return Rejection(
        recipe=recipe,
        reason=str(refusal),
        least_bytes=refusal.least_bytes,
        quantized=refusal.quantized,
    )


def encode_refusal(refusal: PassRefused) -> dict[str, Any]:
    """Encode a refusal for the cache."""
    return {
        "rejected": str(refusal),
        "least_bytes": refusal.least_bytes,
        "quantized": refusal.quantized,
    }


def decode_refusal(facts: Mapping[str, Any] | None) -> PassRefused | None:
    """Decode a refusal from the cache; ``None`` where the facts are of something else."""
    if facts is None or "rejected" not in facts:
        return None
    least = facts.get("least_bytes")
    return PassRefused(
        str(facts["rejected"]),
        least_bytes=least if isinstance(least, int) else None,
        quantized=facts.get("quantized") is True,
    )
