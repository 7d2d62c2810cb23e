"""Rows in the page become the same inputs as on other devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.web.node_calls import NodeError, call

_FIELDS = ["age", "weight", "height"]


def _read(row: Any, *, dtype: str = "float32", fields: list[str] | None = None) -> Any:
    settings = {
        "inputs": [{"name": "x", "dtype": dtype, "shape": ["N", 3]}],
        "fields": [{"input": "x", "fields": fields}] if fields else [],
        "feeding": {"constants": [], "states": []},
    }
    return call("rows", "readRow", row, settings)


def test_numbers_may_be_written_as_text() -> None:
    """As the form of a page or a table has them."""
    found = _read({"age": " 50 ", "weight": "+7e1", "height": 0.5}, fields=_FIELDS)
    np.testing.assert_array_equal(found["x"], [50, 70, 0.5])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"age": True, "weight": 2, "height": 3}, "age is true, not a number"),
        ({"age": "1_0", "weight": 2, "height": 3}, "age is not a number"),
        ({"age": "\u0665", "weight": 2, "height": 3}, "age is not a number"),
        ({"x": [1, False, 3]}, "x is false, not a number"),
        ([1, True, 3], "x is true, not a number"),
    ],
)
def test_what_is_no_number_is_refused(row: Any, said: str) -> None:
    """With the words of other devices."""
    with pytest.raises(NodeError) as caught:
        _read(row, fields=_FIELDS)
    assert caught.value.kind == "bad_sample"
    assert said in caught.value.message


def test_inputs_of_truth_values_take_true_and_false() -> None:
    """There they are values of the type."""
    assert _read({"x": [True, False, True]}, dtype="bool")["x"].tolist() == [1, 0, 1]
