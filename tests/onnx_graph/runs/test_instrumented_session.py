"""A graph with added outputs computes the same, and leaves no files."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from edgekit.errors import UserError
from edgekit.onnx_graph.runs.instrumented_session import Additions, open_instrumented
from tests.builders.tiny import normal, proto, uniform

TEXT = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) }"


def test_added_outputs_return_inner_values_and_change_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    weight = normal(32, 32)
    made = proto(TEXT, weights={"w": weight})
    before = made.SerializeToString()
    additions = Additions(outputs=["r", "least"])
    additions.add("h", helper.make_node("ReduceMin", ["h"], ["least"], keepdims=0))
    x = uniform(4, 32)

    session = open_instrumented(made, additions)
    assert not list(tmp_path.iterdir())
    y, r, least = session.run(["y", "r", "least"], {"x": x})

    np.testing.assert_allclose(least, (x @ weight).min(), rtol=1e-5)
    np.testing.assert_allclose(r, np.maximum(x @ weight, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y, r @ weight, rtol=1e-4, atol=1e-4)
    assert made.SerializeToString() == before


def test_an_added_output_that_the_runtime_rejects_causes_one_line():
    additions = Additions(outputs=["z"])
    additions.add("h", helper.make_node("NoSuchOperator", ["h"], ["z"]))

    with pytest.raises(
        UserError, match=r"^the intermediate values of the model cannot be read: [^\n]+$"
    ):
        open_instrumented(proto(TEXT, weights={"w": normal(32, 32)}), additions)
