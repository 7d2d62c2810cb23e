"""Held-out samples of a pass, for the error of its result on new data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.compression.pass_specs import Work
from edgekit.data.groups import SEQUENCE
from edgekit.data.subsets import count_samples, cut_parts
from edgekit_agent.measure.feeds import open_columns
from edgekit_agent.samples import Samples

# One of this many samples is held out, within the bounds on the next line.
_SHARE = 8
_FEWEST, _FEW, _MOST = 2, 4, 16
# Consecutive samples in a held-out piece: neighbors may be similar.
_PIECE = 2
# With this many sequences, whole ones are held out.
_SEQUENCES = 4


@dataclass(frozen=True, kw_only=True)
class _Span:
    """Range of samples, from ``start`` up to ``end``."""

    start: int
    end: int


def hold_out_samples(work: Work, *, least: int, batch: int, in_time: bool) -> Work:
    """Divide the calibration samples of a pass into used and held-out samples.

    Pieces spread over all samples are held out: an eighth of them, a few at most. Steps of a
    sequence are similar, so whole sequences are held out (an eighth of them as well), or the last
    steps if there are few.

    Args:
        work: work with the calibration samples.
        least: with fewer samples none is held out, as the pass needs all of them.
        batch: batch size of the model; a batch stays together.
        in_time: whether the samples are steps of sequences.
    """
    samples = work.calibration
    if samples is None:
        return work
    total = count_samples([samples])
    if total < max(least, 4 * batch):
        return work
    spans = _choose_steps(samples, total, work) if in_time else _choose_pieces(total, batch)
    unseen = [part for span in spans for part in _cut(samples, span)]
    seen = [part for span in _iter_gaps(spans, total) for part in _cut(samples, span)]
    return replace(work, seen=tuple(seen), unseen=tuple(unseen))


def _cut(samples: Samples, span: _Span) -> list[Samples]:
    return cut_parts([samples], span.start, span.end - span.start)


def _count(total: int) -> int:
    """Compute the number of held-out samples."""
    least = _FEW if total >= _SHARE * _FEWEST else _FEWEST
    return min(max(total // _SHARE, least), _MOST)


def _choose_pieces(total: int, batch: int) -> list[_Span]:
    size = max(_PIECE, batch)
    count = max(_count(total) // size, 1)
    # Whole batches, each in the middle of its share of the samples.
    starts = [int((i + 0.5) * total / count) // size * size for i in range(count)]
    return [_Span(start=start, end=min(start + size, total)) for start in starts]


def _choose_steps(samples: Samples, total: int, work: Work) -> list[_Span]:
    sequences = _find_sequences(samples, total)
    if len(sequences) < _SEQUENCES:
        told = _format_count(len(sequences))
        work.note(
            f"the output error was measured on the last steps of {told} and may be larger on other "
            f'sequences; give at least {_SEQUENCES}, numbered by an array "{SEQUENCE}"'
        )
        return [_Span(start=total - _count(total), end=total)]
    # Sequences differ more than the steps of one: an eighth of them, however long they are.
    of_samples = round(len(sequences) * _count(total) / total)
    count = max(of_samples, min(len(sequences) // _SHARE, _MOST), 1)
    return [sequences[int((i + 0.5) * len(sequences) / count)] for i in range(count)]


def _format_count(sequences: int) -> str:
    return "one sequence" if sequences == 1 else f"{sequences} sequences"


def _find_sequences(samples: Samples, total: int) -> list[_Span]:
    if samples.sequence is None:
        return [_Span(start=0, end=total)]
    with open_columns([samples.sequence]) as opened:
        numbers = opened[samples.sequence.name].read(0, total)
    starts = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(numbers)))]
    ends = [*starts[1:], total]
    return [_Span(start=a, end=b) for a, b in zip(starts, ends, strict=True)]


def _iter_gaps(spans: Sequence[_Span], total: int) -> Iterator[_Span]:
    starts = [0, *(span.end for span in spans)]
    ends = [*(span.start for span in spans), total]
    yield from (_Span(start=a, end=b) for a, b in zip(starts, ends, strict=True) if a < b)
