"""A graph whose outputs differ from its source is detected."""

import numpy as np
import pytest

from edgekit.conversion.importers.postprocess import standardize_graph
from edgekit.conversion.importers.registry import Conversion
from edgekit.conversion.importers.verify import check_agreement
from edgekit.errors import UserError
from edgekit.onnx_graph.output_differences import compute_largest_difference
from tests.builders import tiny

TWICE = "g (float[N, 4] x) => (float[N, 4] y) { y = Add(x, x) }"


def check(reference):
    made = Conversion(proto=tiny.proto(TWICE), tool="a tool", reference=reference)
    check_agreement(made, display_name="model.h5")


def test_equal_outputs_are_accepted():
    check(lambda inputs: [2 * inputs[0]])


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (lambda inputs: [2.001 * inputs[0]], "differs from the source: y by 0.000"),
        (lambda inputs: [2 * inputs[0][:1]], "y has shape [3, 4], in the source [1, 4]"),
        (
            lambda inputs: [np.random.default_rng().normal(size=inputs[0].shape)],
            "the outputs differ between runs",
        ),
        (lambda inputs: [2 * inputs[0] * (len(inputs[0]) < 3)], "differs from the source: y by "),
    ],
    ids=["values", "shape", "chance", "batch"],
)
def test_different_outputs_are_refused(reference, says):
    with pytest.raises(UserError) as refused:
        check(reference)
    assert says in refused.value.message


def test_differences_that_the_source_amplifies_are_allowed():
    made = Conversion(
        proto=tiny.proto("g (float[N, 4] x) => (float[N, 4] y) { c = Mul(x, x)\n y = Sin(c) }"),
        tool="a tool",
        reference=lambda inputs: [np.sin(inputs[0].astype(np.float64) ** 2)],
    )
    check_agreement(made, display_name="model.h5")


def test_a_difference_is_relative_to_the_largest_value_and_may_skip_rows():
    expected = np.array([[10.0], [1.0], [1.0], [1.0]])
    got = np.array([[10.0], [1.0], [1.0], [3.0]])
    assert compute_largest_difference(expected, got) == pytest.approx(0.2)
    assert compute_largest_difference(expected, got, stray=0.25) == 0


def test_outputs_that_are_inputs_or_repeated_get_their_own_names():
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
    proto = tiny.proto(text)
    proto.graph.output.extend([proto.graph.output[0], proto.graph.input[0]])
    made = standardize_graph(proto, inputs=["y"], outputs=["a", "b", "c"])
    assert [v.name for v in made.graph.input] == ["y"]
    session = tiny.ort.InferenceSession(made.SerializeToString())
    x = np.array([[-1, 2, 3, 4]], np.float32)
    a, b, c = session.run(["a", "b", "c"], {"y": x})
    assert (a == b).all()
    assert (c == x).all()
