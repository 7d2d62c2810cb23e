"""Divergence of a changed graph's outputs from those of the original graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.compression.numerics import Doubles
from edgekit.onnx_graph.io import get_opset, read_signature
from edgekit.onnx_graph.output_parts import find_output_parts
from edgekit.onnx_graph.runs.activations import Values, observe
from edgekit_agent.samples import Samples

Value = NDArray[np.generic]

_LEAST = 1e-12
# Smallest variance relative to the mean square: an almost constant output is not judged by its last
# digits.
_LEAST_SPREAD = 1e-3
_SUMS_TO_ONE = 1e-3
# Range of the deviation within rows that counts as logits. Treated as logits, values with a smaller
# spread would hardly count beside other outputs, and of values with a larger spread only the
# largest would count.
_LEAST_DEVIATION, _LARGEST_DEVIATION = 0.5, 30.0
# Before opset 13 Softmax ran over all axes from its own on.
_SOFTMAX_OF_ONE_AXIS = 13


class Reference:
    """Float outputs of the original graph on a few samples, as the reference of a comparison.

    A row of scores counts as a distribution, and its divergence is in nats (Kullback and Leibler
    1951). Scores are the outputs of a Softmax over the last axis, and outputs of two axes whose
    values spread as logits do. Any other output is compared by the parts that it is concatenated
    from. Each part counts the same, whatever its scale: by its squared error over its variance.
    """

    def __init__(self, proto: ModelProto, parts: Sequence[Samples]) -> None:
        self._samples = parts
        outputs = read_signature(proto).outputs
        floats = [o.name for o in outputs if np.dtype(o.dtype).kind == "f"]
        self._parts = {name: _find_parts(proto, name) for name in floats}
        self._scores = {name for name in floats if ends_in_softmax(proto, name)}
        self._names = list(dict.fromkeys(n for o in floats for n in (o, *self._parts[o])))
        self._known = list(observe(proto, self._names, parts)) if self._names else []
        self._spreads = {n: compute_spread([v[n] for v in self._known]) for n in self._names}
        self._scores |= {name for name in floats if self._spreads_as_scores(name)}

    @property
    def has_outputs(self) -> bool:
        """Return whether there are float outputs to compare."""
        return bool(self._known)

    def divergence(self, proto: ModelProto) -> float:
        """Return the sum of the divergences of all outputs, averaged over the batches.

        It is infinite if an output is not finite where the original is, or has another shape.
        """
        parts = {output: self._pair_parts(proto, output) for output in self._parts}
        names = [n for o, pairs in parts.items() for n in (o, *(new for _, new in pairs))]
        total = 0.0
        for known, values in zip(
            self._known, observe(proto, list(dict.fromkeys(names)), self._samples), strict=True
        ):
            total += sum(
                self._compute_output_divergence(output, pairs, known, values)
                for output, pairs in parts.items()
            )
        return total / len(self._known)

    def _pair_parts(self, proto: ModelProto, output: str) -> list[tuple[str, str]]:
        """Match the parts of an output with those of another graph; the whole if they differ."""
        olds, news = self._parts[output], _find_parts(proto, output)
        return list(zip(olds, news, strict=True)) if len(olds) == len(news) else [(output, output)]

    def _compute_output_divergence(
        self, output: str, pairs: Sequence[tuple[str, str]], known: Values, values: Values
    ) -> float:
        before, after = (v[output].astype(np.float64) for v in (known, values))
        if before.shape != after.shape or not before.size:
            return float("inf") if before.shape != after.shape else 0.0
        is_finite = bool(np.isfinite(before).all())
        if not np.isfinite(after[np.isfinite(before)]).all():
            return float("inf")
        if is_finite and output in self._scores:
            rows = (-1, before.shape[-1])
            return _compute_kl_divergence(before.reshape(rows), after.reshape(rows))
        errors = [self._compute_relative_error(old, known[old], values[new]) for old, new in pairs]
        return sum(errors) / len(errors)

    def _compute_relative_error(self, part: str, old: Value, new: Value) -> float:
        before, after = old.astype(np.float64), new.astype(np.float64)
        if before.shape != after.shape:
            return float("inf")
        kept = np.isfinite(before)
        if not np.isfinite(after[kept]).all():
            return float("inf")
        if not kept.any():
            return 0.0
        return float(np.square(after[kept] - before[kept]).mean() / self._spreads[part])

    def _spreads_as_scores(self, output: str) -> bool:
        """Return whether an output of two axes holds probabilities or likely logits."""
        rows = [values[output].astype(np.float64) for values in self._known]
        if len(self._parts[output]) != 1 or any(r.ndim != 2 or r.shape[1] < 2 for r in rows):
            return False
        rows = [row for row in rows if np.isfinite(row).all()]
        if all(are_probabilities(row) for row in rows):
            return True
        return spread_as_logits(rows)


def compute_spread(values: Sequence[Value]) -> float:
    """Return the variance of the finite entries of arrays, at least a part of their mean square."""
    count, total, square = 0, 0.0, 0.0
    for value in values:
        row = value.astype(np.float64)
        row = row[np.isfinite(row)]
        count, total = count + row.size, total + float(row.sum())
        square += float(np.square(row).sum())
    mean, power = total / max(count, 1), square / max(count, 1)
    return max(power - mean**2, _LEAST_SPREAD * power) or _LEAST


def _find_parts(proto: ModelProto, output: str) -> list[str]:
    """Return the values that an output is concatenated or scaled from; itself if there are none."""
    return find_output_parts(proto, output) or [output]


def ends_in_softmax(proto: ModelProto, output: str) -> bool:
    """Return whether an output is computed by a Softmax over its last axis."""
    made = [node for node in proto.graph.node if output in node.output]
    if not made or made[0].op_type != "Softmax" or get_opset(proto) < _SOFTMAX_OF_ONE_AXIS:
        return False
    shapes = {v.name: v.type.tensor_type.shape for v in proto.graph.output}
    rank = len(shapes[output].dim)
    axis = next((a.i for a in made[0].attribute if a.name == "axis"), -1)
    return axis in (-1, rank - 1) and rank > 1


def _compute_kl_divergence(before: Doubles, after: Doubles) -> float:
    """Return the mean divergence of rows of logits, or of probabilities, in nats."""
    log = _compute_log_probabilities if are_probabilities(before) else _compute_log_softmax
    p, q = log(before), log(after)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def spread_as_logits(batches: Sequence[Doubles]) -> bool:
    """Return whether the rows of batches deviate within themselves as logits do."""
    deviation = np.sqrt(np.mean([np.mean(rows.var(axis=1)) for rows in batches]))
    return bool(_LEAST_DEVIATION <= deviation <= _LARGEST_DEVIATION)


def are_probabilities(rows: Doubles) -> bool:
    """Return whether every row is a distribution: not negative, and with a sum of 1."""
    sums = rows.sum(axis=1)
    return bool((rows >= 0).all() and (np.abs(sums - 1) < _SUMS_TO_ONE).all())


def _compute_log_probabilities(values: Doubles) -> Doubles:
    floored: Doubles = np.log(np.maximum(values, _LEAST))
    return floored


def _compute_log_softmax(scores: Doubles) -> Doubles:
    shifted = scores - scores.max(axis=1, keepdims=True)
    log: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log
