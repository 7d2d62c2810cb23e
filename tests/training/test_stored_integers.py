"""Students whose weights are stored as integers learn, and their files give what training saw."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgekit.onnx_graph.runs.instrumented_session import Additions, open_instrumented
from tests.builders import tiny
from tests.training.students import INPUTS, STATIC, disturb, make_student

STUDENTS = [
    *(("images", each) for each in ("few", "static", "few-static")),
    ("branches", "static"),
    *(("tokens", each) for each in ("few", "static", "few-static", "dynamic", "half")),
    *(("sequences", each) for each in ("few", "dynamic")),
]


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """Return a function that makes a student, once for each name."""
    made = {}

    def make(kind, recipe):
        if (kind, recipe) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}-{recipe}")
            made[kind, recipe] = make_student(folder, kind, recipe)
        return made[kind, recipe]

    return make


def run_unfused(proto, x):
    """Run with QDQ in float32."""
    return open_instrumented(proto, Additions()).run(None, {"x": x})[0]


def make_function(proto, **settings):
    from edgekit.training.tf_function.onnx_function import GraphFunction

    return GraphFunction(proto, **settings)


def write_back(proto, function):
    from edgekit.training.tf_function.onnx_function import write_back

    return write_back(proto, function)


def largest_difference(wanted, value):
    return np.abs(wanted - np.asarray(value)).max() / np.abs(wanted).max()


# onnxruntime's integer LSTM also rounds its state.
def tolerance(kind, recipe, otherwise):
    return 0.05 if (kind, recipe) == ("sequences", "dynamic") else otherwise


@pytest.mark.parametrize(("kind", "recipe"), STUDENTS)
def test_the_outputs_are_those_of_the_file(tf, students, kind, recipe):
    proto, x = students(kind, recipe), INPUTS[kind][:4]
    value = make_function(proto)({"x": x})["y"]
    assert largest_difference(run_unfused(proto, x), value) < tolerance(kind, recipe, 1e-4)


@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize(("kind", "recipe"), STUDENTS)
def test_the_written_file_gives_what_the_function_gave(tf, students, kind, recipe, learn_scales):
    proto, x = students(kind, recipe), INPUTS[kind][:4]
    function = make_function(proto, learn_scales=learn_scales)
    assert write_back(proto, function).SerializeToString() == proto.SerializeToString()
    before = run_unfused(proto, x)
    disturb(function)
    learned, value = write_back(proto, function), function({"x": x})["y"]
    assert list(learned.graph.node) == list(proto.graph.node)
    assert largest_difference(run_unfused(learned, x), value) < tolerance(kind, recipe, 1e-3)
    assert largest_difference(before, value) > 0.02


@pytest.mark.parametrize(("kind", "recipe"), STUDENTS)
def test_every_stored_weight_learns(tf, students, kind, recipe):
    proto, x = students(kind, recipe), INPUTS[kind][:4]
    function = make_function(proto, learn_scales=True)
    learned = function.variables_by_name | function.scales_by_name

    @tf.function(autograph=False)
    def compute_gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(function({"x": x})["y"]))
        return tape.gradient(loss, learned)

    gradients = compute_gradients()
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    integers = {
        t.name
        for t in proto.graph.initializer
        if t.data_type in (TensorProto.INT8, TensorProto.INT4) and np.prod(t.dims) > 200
    }
    assert integers <= function.variables_by_name.keys()
    assert (recipe == "half") == (not integers)


def test_few_bit_weights_stay_in_their_range_and_take_few_bits(tf, students):
    proto = students("images", "few")
    function = make_function(proto, learn_scales=True)
    for variable in function.variables_by_name.values():
        variable.assign(3 * variable)
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in each.graph.initializer}
        for each in (proto, write_back(proto, function))
    )
    for name, parameter in function.parameters.items():
        if parameter.grid is not None:
            bits = np.ceil(np.log2(np.abs(before[name].astype(int)).max() + 1))
            assert after[name].dtype == np.int8
            assert np.abs(after[name].astype(int)).max() < 2**bits


def test_the_scales_of_inputs_and_of_softmax_stay(tf, tmp_path):
    text = """
    g (float[N,8] x) => (float[N,4] y) {
        i = Flatten (x)  h = MatMul (i, w)  r = Relu (h)
        m = MatMul (r, v)  s = Softmax (m)  y = MatMul (s, u)
    }"""
    weights = {name: tiny.normal(*shape) for name, *shape in (("w", 8, 8), ("v", 8, 4))}
    weights["u"] = tiny.normal(4, 4)
    data = tiny.samples(tmp_path, x=tiny.normal(32, 8))
    name, settings = STATIC
    model = tiny.apply(
        name, tiny.model(tmp_path, text, weights=weights), tmp_path, data, **settings
    )
    proto = onnx.load(model.path)
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    quantizers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    kept = (None, "Flatten", "Softmax")
    fixed = {q.input[1] for q in quantizers if makers.get(q.input[0]) in kept}
    learned = make_function(proto, learn_scales=True).scales_by_name
    assert len(fixed) >= 2
    assert not fixed & learned.keys()
    assert {q.input[1] for q in quantizers} - fixed <= learned.keys()
