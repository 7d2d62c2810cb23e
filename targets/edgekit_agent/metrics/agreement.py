"""Statistics of agreement with the original, whose outputs are the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterator, Tuple

import numpy as np

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions


def compute_agreement(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return whether the largest value is at the same place as the original's, and that place."""
    name = options.output or next(iter(sample.targets), "y")
    output, original = _pair(sample, name, sample.get_target(name))
    place = int(output.argmax())
    return np.array([place == int(original.argmax()), place], np.float64)


def compute_products(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return for each output the sums of squares of output and original, and of their product."""
    del options
    found = list(_iter_pairs(sample))
    sums = [(np.sum(a * a), np.sum(b * b), np.sum(a * b)) for a, b in found]
    return np.array(sums, np.float64).reshape(-1)


def compute_differences(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return for each output the sums of squares of its difference and of the original."""
    del options
    found = list(_iter_pairs(sample))
    sums = [(np.sum((a - b) * (a - b)), np.sum(b * b)) for a, b in found]
    return np.array(sums, np.float64).reshape(-1)


def _iter_pairs(
    sample: ScoredSample,
) -> Iterator[Tuple[NDArray[np.float64], NDArray[np.float64]]]:
    for name, target in sample.targets.items():
        yield _pair(sample, name, target)


def _pair(
    sample: ScoredSample, name: str, target: NDArray[Any]
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return output and original as rows of float64.

    Raises:
        AgentError: ``bad_job``; they differ in size, or the output is empty.
    """
    output = np.ascontiguousarray(sample.get_output(name), np.float64).reshape(-1)
    original = np.ascontiguousarray(target, np.float64).reshape(-1)
    if output.size != original.size or not output.size:
        raise AgentError(
            "bad_job",
            f"output {name} of sample {sample.number} has {output.size} values, that of the "
            f"original {original.size}",
        )
    return output, original


STATISTICS: Dict[str, Statistic] = {
    "agreement": compute_agreement,
    "output-cosine": compute_products,
    "output-rms": compute_differences,
}
