"""Checks that the outputs of a student can be compared with those of its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import PassRefused

Values = Sequence[Mapping[str, NDArray[np.generic]]]


def find_incomparable_outputs(names: Sequence[str], wanted: Values, given: Values) -> list[str]:
    """Find the outputs whose size differs between student and teacher.

    Such are the outputs of NonMaxSuppression, whose size depends on the values.

    Args:
        names: float outputs of both models.
        wanted: values of the teacher on a few runs, by name.
        given: values of the student on the same runs.

    Raises:
        PassRefused: an output of either model has no finite value.
    """
    for who, values in (("original model", wanted), ("student", given)):
        for name in names:
            found = [v[name] for v in values if v[name].size]
            if found and not any(np.isfinite(v).any() for v in found):
                raise PassRefused(
                    f"the {who} computes no finite value of output {name} on calibration samples",
                    hint="check its weights and the samples for NaN and very large values",
                )
    return [
        name
        for name in names
        if any(a[name].shape != b[name].shape for a, b in zip(wanted, given, strict=True))
    ]
