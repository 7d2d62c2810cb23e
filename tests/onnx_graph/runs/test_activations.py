"""Intermediate values of a graph, batch by batch, for any batch axis."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import UserError
from edgekit.onnx_graph.runs.activations import observe
from tests.builders.tiny import proto, samples, uniform


def test_inputs_inner_values_and_outputs_are_seen_for_every_sample(tmp_path):
    made = proto("g (float[N,3] x) => (float[N,3] y) { h = Neg(x) y = Abs(h) }")
    x = uniform(5, 3)
    seen = list(observe(made, ["x", "h", "y"], [samples(tmp_path, x=x)]))

    for name, expected in {"x": x, "h": -x, "y": np.abs(x)}.items():
        np.testing.assert_array_equal(np.concatenate([values[name] for values in seen]), expected)
    assert [v.name for v in made.graph.output] == ["y"]


def test_parts_are_fed_one_after_the_other_and_progress_goes_to_the_end(tmp_path):
    made = proto("g (float[N,1] x) => (float[N,1] y) { y = Neg(x) }")
    parts = [samples(tmp_path, x=np.full((n, 1), n, np.float32)) for n in (2, 3)]
    told = []

    values = [v["y"].item() for v in observe(made, ["y"], parts, tick=lambda *t: told.append(t))]

    assert values == [-2, -2, -3, -3, -3]
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_fixed_batch_is_met_even_where_another_input_is_free(tmp_path):
    text = "g (float[N,2] free, float[4,2] fixed) => (float[4,2] y) { y = Add(free, fixed) }"
    data = samples(tmp_path, free=uniform(6, 2), fixed=uniform(6, 2))

    shapes = [values["y"].shape for values in observe(proto(text), ["y"], [data])]

    assert shapes == [(4, 2), (2, 2)]  # what fills up the last batch is no sample


def test_a_sample_that_the_model_fails_on_is_named_by_its_number(tmp_path):
    text = (
        "g (int64[N] i) => (float[N] y) "
        "{ t = Constant<value = float[2] {1.0, 2.0}>() y = Gather(t, i) }"
    )
    data = samples(tmp_path, i=np.array([0, 1, 7]))

    with pytest.raises(UserError, match="fails on sample 2"):
        list(observe(proto(text), ["y"], [data]))
