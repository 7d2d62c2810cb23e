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


def count_edits(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Count the insertions, deletions and substitutions between two sequences."""
    numbers: Dict[Any, int] = {}
    coded = [[numbers.setdefault(item, len(numbers)) for item in part] for part in (first, second)]
    short, long = sorted(coded, key=len)
    row = np.arange(len(long) + 1)
    places = row.copy()
    items = np.array(long, np.int64)
    for item in short:
        changed = np.minimum(row[1:] + 1, row[:-1] + (items != item))
        row = np.concatenate([row[:1] + 1, changed])
        # An insertion adds 1 to the value on the left, any number of times.
        row = np.minimum.accumulate(row - places) + places
    return int(row[-1])


def _compare(output: Sequence[Any], target: Sequence[Any]) -> NDArray[np.float64]:
    edits = 0 if output == target else count_edits(output, target)
    return np.array([edits, len(target), edits == 0], np.float64)


def _read_texts(sample: ScoredSample, options: MetricOptions, metric: str) -> tuple[str, str]:
    name = "text" if options.output is None and "text" in sample.outputs else options.output
    return (
        _read_text(
            sample.get_output(name), options, f"the output of sample {sample.number}", metric
        ),
        _read_text(sample.get_target(), options, f"the target of sample {sample.number}", metric),
    )


def _read_text(values: NDArray[Any], options: MetricOptions, source: str, metric: str) -> str:
    """Return code points as a text, without the ignored one and whitespace at both ends."""
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
