"""Facts for the user about outputs that a result keeps little of."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.passes import PassSpec
from edgekit.passes.agreement import Agreement
from edgekit.passes.unseen import LEAST

# Relative error from which on most of an output may be lost.
_MUCH = 0.5
# Errors on unseen samples that are so much larger than on the others, and not tiny.
_TIMES, _TOLD = 2.0, 0.02
# Outputs that are named.
_NAMED = 4


def notes_on(spec: PassSpec, found: Agreement) -> Iterator[str]:
    """What a user should know of the error beside its figure, in plain sentences."""
    if not found.samples:
        return
    if spec.needs_calibration and not found.unseen:
        yield (
            f"the output error is that of the {found.samples} samples that the pass was fitted "
            f"to; new ones may be further off: give at least {LEAST}, and several batches"
        )
    yield from _much_lost(spec, found)
    yield from _overfit(found)


def _overfit(found: Agreement) -> Iterator[str]:
    """Say where the result follows the samples it was fitted to more than the model."""
    if found.worst is None or not found.unseen:
        return
    name, error = found.worst
    before = found.seen_errors.get(name, error)
    if error >= _TOLD and error > _TIMES * before:
        yield (
            f"the result follows the samples it was fitted to more than the model: output {name} "
            f"is off by {before:.2g} on them and by {error:.2g} on {found.unseen} others; give "
            "more samples"
        )


def _much_lost(spec: PassSpec, found: Agreement) -> Iterator[str]:
    """Say which outputs are further off than half of their size."""
    lost = [f"{name} {error:.2g}" for name, error in found.relative_errors.items() if error > _MUCH]
    if not lost:
        return
    told = ", ".join(lost[:_NAMED]) + (f" and {len(lost) - _NAMED} more" if lost[_NAMED:] else "")
    where = f"{found.unseen} samples that the pass has not seen" if found.unseen else "the samples"
    stays = f"let more of the model stay ({spec.asks}), or give" if spec.asks else "give"
    yield (
        f"much of the outputs is lost; error relative to their own size on {where}: {told}; "
        f"{stays} more samples, and try the result before you use it"
    )
