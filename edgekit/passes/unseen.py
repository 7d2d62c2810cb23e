"""Samples that a pass does not see, so that they tell how far its result is off on new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.data import SEQUENCE
from edgekit.passes import Work
from edgekit.subsets import count_of, cut
from edgekit_agent.feeds import open_columns
from edgekit_agent.samples import Samples

# Of fewer samples none is kept apart: the pass needs them all.
LEAST = 12
# The part of the samples that is kept apart, and how many that is.
_SHARE = 8
_FEWEST, _FEW, _MOST = 2, 4, 16
# Samples in a row that are kept apart: neighbours may be much alike.
_PIECE = 2
# Of so many sequences whole ones are kept apart.
_SEQUENCES = 4


@dataclass(frozen=True, kw_only=True)
class _Span:
    """Samples ``start`` to ``end``."""

    start: int
    end: int


def keep_apart(work: Work, *, batch: int, in_time: bool) -> Work:
    """The same work with some calibration samples kept apart from the pass.

    Pieces from all over the samples, an eighth of them and a few at most. Steps of sequences are
    alike, so whole sequences go there, or the last steps of all where there are few sequences.

    Args:
        work: whose calibration samples there are.
        batch: samples that the model takes at once, which stay together.
        in_time: whether the samples are steps of sequences.
    """
    samples = work.calibration
    if samples is None:
        return work
    total = count_of([samples])
    if total < max(LEAST, 4 * batch):
        return work
    spans = _steps(samples, total, work) if in_time else _pieces(total, batch)
    unseen = [part for span in spans for part in _cut(samples, span)]
    seen = [part for span in _between(spans, total) for part in _cut(samples, span)]
    return replace(work, seen=tuple(seen), unseen=tuple(unseen))


def _cut(samples: Samples, span: _Span) -> list[Samples]:
    return cut([samples], span.start, span.end - span.start)


def _count(total: int) -> int:
    """How many samples are kept apart."""
    least = _FEW if total >= _SHARE * _FEWEST else _FEWEST
    return min(max(total // _SHARE, least), _MOST)


def _pieces(total: int, batch: int) -> list[_Span]:
    size = max(_PIECE, batch)
    count = max(_count(total) // size, 1)
    # Whole batches, each in the middle of its share of the samples.
    starts = [int((i + 0.5) * total / count) // size * size for i in range(count)]
    return [_Span(start=start, end=min(start + size, total)) for start in starts]


def _steps(samples: Samples, total: int, work: Work) -> list[_Span]:
    sequences = _sequences(samples, total)
    if len(sequences) < _SEQUENCES:
        work.note(
            f"the output error is told of the last steps of {_counted(len(sequences))}; others may "
            f'be further off: give at least {_SEQUENCES}, numbered by an array "{SEQUENCE}"'
        )
        return [_Span(start=total - _count(total), end=total)]
    count = max(round(len(sequences) * _count(total) / total), 1)
    return [sequences[int((i + 0.5) * len(sequences) / count)] for i in range(count)]


def _counted(sequences: int) -> str:
    return "one sequence" if sequences == 1 else f"{sequences} sequences"


def _sequences(samples: Samples, total: int) -> list[_Span]:
    if samples.sequence is None:
        return [_Span(start=0, end=total)]
    with open_columns([samples.sequence]) as opened:
        numbers = opened[samples.sequence.name].read(0, total)
    starts = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(numbers)))]
    ends = [*starts[1:], total]
    return [_Span(start=a, end=b) for a, b in zip(starts, ends, strict=True)]


def _between(spans: Sequence[_Span], total: int) -> Iterator[_Span]:
    starts = [0, *(span.end for span in spans)]
    ends = [*(span.start for span in spans), total]
    yield from (_Span(start=a, end=b) for a, b in zip(starts, ends, strict=True) if a < b)
