"""Statistics of recognized texts: edits (Levenshtein 1966) of characters and of words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Sequence

import numpy as np

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions


def compare_characters(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the number of edited characters, that of the target, and whether none is edited.

    Whitespace at both ends does not count.
    """
    output, target = _read_texts(sample, options, "cer")
    return _compare(output, target)


def compare_words(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the number of edited words, that of the target, and whether none is edited."""
    output, target = _read_texts(sample, options, "wer")
    return _compare(output.split(), target.split())


def count_edits(first: Sequence[str], second: Sequence[str]) -> int:
    """Count the insertions, deletions and substitutions between two sequences.

    The differences of neighboring distances, +1 or -1, are bits of integers (Myers 1999 in the
    form of Hyyrö 2003), so that a column of the distances is updated at once.
    """
    if not first:
        return len(second)
    places: Dict[str, int] = {}
    for place, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << place
    edits, last, mask = len(first), 1 << (len(first) - 1), (1 << len(first)) - 1
    # Where the distance grows or falls from one item of the first sequence to the next.
    grows_down, falls_down = mask, 0
    for item in second:
        equal = places.get(item, 0)
        diagonal = (((equal & grows_down) + grows_down) ^ grows_down) | equal
        grows = falls_down | ~(diagonal | grows_down)
        falls = grows_down & diagonal
        edits += bool(grows & last) - bool(falls & last)
        grows, falls = grows << 1 | 1, falls << 1
        vertical = equal | falls_down
        grows_down = (falls | ~(vertical | grows)) & mask
        falls_down = grows & vertical & mask
    return edits


def _compare(output: Sequence[str], target: Sequence[str]) -> NDArray[np.float64]:
    edits = 0 if output == target else count_edits(output, target)
    return np.array([edits, len(target), edits == 0], np.float64)


def _read_texts(sample: ScoredSample, options: MetricOptions, metric: str) -> tuple[str, str]:
    return (
        read_recognized_text(sample, options, metric),
        read_text(sample.get_target(), options, f"the target of sample {sample.number}", metric),
    )


def read_recognized_text(sample: ScoredSample, options: MetricOptions, metric: str) -> str:
    """Return the text that a model recognized.

    Raises:
        AgentError: ``bad_job``; the output holds no code points.
    """
    name = "text" if options.output is None and "text" in sample.outputs else options.output
    source = f"the output of sample {sample.number}"
    return read_text(sample.get_output(name), options, source, metric)


def read_text(values: NDArray[Any], options: MetricOptions, source: str, metric: str) -> str:
    """Return code points as a text, without the ignored one and whitespace at both ends.

    Raises:
        AgentError: ``bad_job``; the values are no code points.
    """
    if values.dtype.kind not in "iu" and values.size:
        raise AgentError(
            "bad_job",
            f"metric {metric}: {source} has type {values.dtype}, but a text is an array of whole "
            "numbers (code points)",
            hint="declare the post-processing, such as ctc with its charset",
        )
    points = values.reshape(-1).tolist()
    if points and not 0 <= min(points) <= max(points) <= 0x10FFFF:
        raise AgentError(
            "bad_job", f"metric {metric}: {source} has numbers that are not code points"
        )
    return "".join(chr(point) for point in points if point != options.ignore).strip()


STATISTICS: Dict[str, Statistic] = {
    "cer": compare_characters,
    "wer": compare_words,
}
