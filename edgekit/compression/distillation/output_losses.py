"""Choice of the loss of each output of a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.compression.output_divergence import (
    are_probabilities,
    compute_spread,
    ends_in_softmax,
    spread_as_logits,
)
from edgekit.onnx_graph.io import read_signature
from edgekit.onnx_graph.output_parts import find_output_parts
from edgekit.training.learning.targets import OutputTarget

Values = Sequence[Mapping[str, NDArray[np.generic]]]
# Scores of sequences, such as texts, have at least this many classes; boxes have fewer numbers.
_LEAST_CLASSES = 16


def list_output_values(proto: ModelProto) -> list[str]:
    """List the float outputs of a model and the values that they are put together from."""
    names: list[str] = []
    for output in list_float_outputs(proto):
        names += [output, *(find_output_parts(proto, output) or [])]
    return list(dict.fromkeys(names))


def choose_output_targets(
    original: ModelProto, student: ModelProto, values: Values, *, left_out: Collection[str] = ()
) -> tuple[OutputTarget, ...]:
    """Choose what the student has to match at its outputs, and by which loss.

    The scores of classes, whether logits or probabilities, are compared by their divergence, before
    a final Softmax if there is one. Other outputs are compared by their squared error, and so are
    the values that they are put together from (``find_output_parts``), each relative to its own
    variance.

    Args:
        original: the teacher.
        student: of the same inputs and outputs.
        values: of the teacher on a few batches: those of ``list_output_values``, by name.
        left_out: outputs not to match.
    """
    outputs = [o for o in list_float_outputs(original) if values[0][o].size and o not in left_out]
    found: list[OutputTarget] = []
    for output in outputs:
        olds = find_output_parts(original, output) or [output]
        news = find_output_parts(student, output) or [output]
        pairs = list(zip(olds, news, strict=True)) if len(olds) == len(news) else []
        found += _choose_for_output(original, output, pairs, values)
    return tuple(
        OutputTarget(**(vars(target) | {"weight": target.weight / max(len(outputs), 1)}))
        for target in found
    )


def _choose_for_output(
    proto: ModelProto, output: str, pairs: Sequence[tuple[str, str]], values: Values
) -> list[OutputTarget]:
    rows = [np.asarray(v[output], np.float64) for v in values]
    if len(pairs) == 1 and ends_in_softmax(proto, output):
        old, new = pairs[0]
        return [OutputTarget(name=new, wanted=old, kind="logits")]
    if all(_are_distributions(row) for row in rows):
        return [OutputTarget(name=output, wanted=output, kind="probabilities")]
    if (
        len(pairs) <= 1
        and all(_may_be_scores(row) for row in rows)
        and spread_as_logits([row.reshape(-1, row.shape[-1]) for row in rows])
    ):
        return [OutputTarget(name=output, wanted=output, kind="logits")]
    targets = [
        OutputTarget(
            name=new,
            wanted=old,
            kind="values",
            spread=compute_spread([v[old] for v in values]),
            weight=1 / len(pairs),
        )
        for old, new in pairs
    ]
    if (output, output) not in pairs:
        spread = compute_spread(rows)
        targets.append(OutputTarget(name=output, wanted=output, kind="values", spread=spread))
    return targets


def _are_distributions(row: NDArray[np.float64]) -> bool:
    return row.ndim >= 2 and row.shape[-1] > 1 and are_probabilities(row.reshape(-1, row.shape[-1]))


def _may_be_scores(row: NDArray[np.float64]) -> bool:
    if row.ndim < 2 or not np.isfinite(row).all():
        return False
    return bool(row.shape[-1] >= (2 if row.ndim == 2 else _LEAST_CLASSES))


def list_float_outputs(proto: ModelProto) -> list[str]:
    """List the float outputs of a model."""
    return [o.name for o in read_signature(proto).outputs if np.dtype(o.dtype).kind == "f"]
