"""Samples as the page has them, and comparison of its answers with those of other devices."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from PIL import Image

from tests.web.node_calls import NodeError, Numbers


def to_page(sample: Any) -> Any:
    """Return a sample as the page has it: images decoded, arrays as lists."""
    if isinstance(sample, np.ndarray) and sample.dtype == np.uint8:
        alpha = np.full((*sample.shape[:2], 1), 255, np.uint8)
        data = np.concatenate([sample, alpha], axis=2)
        return {"width": sample.shape[1], "height": sample.shape[0], "data": Numbers(data.ravel())}
    if isinstance(sample, np.ndarray):
        return sample.tolist()
    if isinstance(sample, bytes) and sample[:4] == b"RIFF":
        return Numbers(np.frombuffer(sample, np.uint8))
    if isinstance(sample, bytes):
        try:
            return to_page(np.asarray(Image.open(io.BytesIO(sample)).convert("RGB")))
        except OSError:
            return {"width": 0, "height": 0, "data": Numbers(np.zeros(0, np.uint8))}
    return sample


def compare_answers(answers: list[Any], wanted: list[Any]) -> None:
    """Compare answers; a text stands for the kind of an error."""
    for answer, expected in zip(answers, wanted, strict=True):
        if isinstance(expected, str):
            assert isinstance(answer, NodeError), expected
            assert answer.kind == expected, answer
            continue
        assert not isinstance(answer, NodeError), answer
        assert set(answer) == set(expected)
        for name in set(expected) - {"ms", "timings"}:
            compare_values(answer[name], expected[name])


def compare_values(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            compare_values(found[name], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            compare_values(one, other)
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-5), (found, wanted)
    else:
        assert found == wanted
