"""Notes to the user about outputs with large errors."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.compression.checks.agreement import Agreement
from edgekit.compression.pass_specs import PassSpec

# Above this relative error (RMS) an output may be useless.
_MUCH = 0.3
# An error on held-out samples is noted if it exceeds this multiple of the others', and this value.
_TIMES, _TOLD = 2.0, 0.02
# Number of outputs that a note names.
_NAMED = 4


def describe_losses(spec: PassSpec, found: Agreement) -> Iterator[str]:
    """Yield notes on large, overfitted or unverified output errors."""
    if not found.samples:
        return
    if spec.needs_calibration and not found.unseen:
        yield (
            f"the output error was measured on the {found.samples} samples that the pass used "
            f"for calibration and may be larger on others; give at least {spec.holds_out_from} "
            "samples in several batches"
        )
    yield from _describe_large_errors(spec, found)
    yield from _describe_overfit(found)


def _describe_overfit(found: Agreement) -> Iterator[str]:
    """Yield a note if the result overfits the calibration samples."""
    if found.worst is None or not found.unseen:
        return
    name, error = found.worst
    before = found.seen_errors.get(name, error)
    if error >= _TOLD and error > _TIMES * before:
        yield (
            f"the result overfits the calibration samples: output {name} has an error of "
            f"{before:.2g} on them and {error:.2g} on {found.unseen} held-out samples; give more "
            "samples"
        )


def _describe_large_errors(spec: PassSpec, found: Agreement) -> Iterator[str]:
    """Yield a note on outputs with a large relative error."""
    lost = [f"{name} {error:.2g}" for name, error in found.relative_errors.items() if error > _MUCH]
    if not lost:
        return
    told = ", ".join(lost[:_NAMED]) + (f" and {len(lost) - _NAMED} more" if lost[_NAMED:] else "")
    where = f"{found.unseen} held-out samples" if found.unseen else "the samples"
    stays = f"compress less (setting {spec.asks}), or give" if spec.asks else "give"
    yield (
        f"outputs have a large relative error on {where}: {told}; {stays} more samples, and test "
        "the result before you use it"
    )
