"""How far a changed graph's outputs are from those of the graph it was made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.graphs.observe import Values, observe
from edgekit.graphs.onnx_file import signature
from edgekit_agent.records import Samples

Doubles = NDArray[np.float64]

_LEAST = 1e-12
# An output that is all but constant is not told apart by its last digits.
_LEAST_SPREAD = 1e-3
_SUMS_TO_ONE = 1e-3


class Reference:
    """The float outputs of a graph on a few samples, kept to hold others against."""

    def __init__(self, proto: ModelProto, parts: Sequence[Samples]) -> None:
        self._parts = parts
        outputs = signature(proto).outputs
        self._names = [o.name for o in outputs if np.dtype(o.dtype).kind == "f"]
        self._known = list(observe(proto, self._names, parts)) if self._names else []
        self._spreads = {name: self._spread(name) for name in self._names}

    @property
    def can_tell(self) -> bool:
        """Whether there are float outputs to compare."""
        return bool(self._known)

    def divergence(self, proto: ModelProto) -> float:
        """Mean over the samples of the divergence of all outputs; infinite where not finite.

        A row of scores counts as the distribution it stands for, and diverges in nats
        (Kullback and Leibler 1951); any other output by its squared error over its variance.
        """
        total = 0.0
        for known, values in zip(
            self._known, observe(proto, self._names, self._parts), strict=True
        ):
            total += sum(self._of(name, known, values) for name in self._names)
        return total / len(self._known)

    def _of(self, name: str, known: Values, values: Values) -> float:
        before, after = (v[name].astype(np.float64) for v in (known, values))
        if before.shape != after.shape or not before.size:
            return float("inf") if before.shape != after.shape else 0.0
        kept = np.isfinite(before)
        if not np.isfinite(after[kept]).all():
            return float("inf")
        if before.ndim == 2 and before.shape[1] > 1 and kept.all():
            return _kullback_leibler(before, after)
        if not kept.any():
            return 0.0
        return float(np.square(after[kept] - before[kept]).mean() / self._spreads[name])

    def _spread(self, name: str) -> float:
        """Variance of an output over all samples, not much below its mean square."""
        count, total, square = 0, 0.0, 0.0
        for values in self._known:
            row = values[name].astype(np.float64)
            row = row[np.isfinite(row)]
            count, total = count + row.size, total + float(row.sum())
            square += float(np.square(row).sum())
        mean, power = total / max(count, 1), square / max(count, 1)
        return max(power - mean**2, _LEAST_SPREAD * power, _LEAST)


def _kullback_leibler(before: Doubles, after: Doubles) -> float:
    """Of scores before softmax, or of the probabilities after it where a graph ends in one."""
    sums = before.sum(axis=1)
    ends_in_softmax = bool((before >= 0).all() and (np.abs(sums - 1) < _SUMS_TO_ONE).all())
    log = _log_probabilities if ends_in_softmax else _log_softmax
    p, q = log(before), log(after)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_probabilities(values: Doubles) -> Doubles:
    floored: Doubles = np.log(np.maximum(values, _LEAST))
    return floored


def _log_softmax(scores: Doubles) -> Doubles:
    shifted = scores - scores.max(axis=1, keepdims=True)
    log: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log
