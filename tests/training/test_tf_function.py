"""An ONNX graph as a TensorFlow function: outputs, gradients, and export to the file."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from edgekit.errors import PassRefused, UserError
from edgekit.onnx_graph.rewrites.bias_scales import store_bias_scales
from tests.builders import tiny


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def function(tf):
    from edgekit.training.tf_function import onnx_function as function

    return function


def onnx_run(proto, feeds, names=None):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(names, feeds)


def small_images():
    """Convolutions of every kind, normalization, pooling and a dense layer."""
    text = """
    g (float[N,4,9,8] x) => (float[N,3] y) {
        a = Conv <pads=[1,1,1,1], strides=[2,1]> (x, dense, dense_bias)
        n = BatchNormalization (a, gain, shift, mean, var)
        b = Relu (n)
        c = Conv <pads=[1,1,1,1], group=8> (b, each)
        d = Conv <group=2, pads=[2,2,2,2], dilations=[2,2]> (c, grouped)
        e = LeakyRelu <alpha=0.1> (d)
        f = MaxPool <kernel_shape=[2,2], strides=[2,2]> (e)
        p = GlobalAveragePool (f)
        q = Flatten (p)
        y = Gemm <transB=1> (q, head, head_bias)
    }"""
    weights = {
        "dense": tiny.normal(8, 4, 3, 3, seed=1, scale=0.3),
        "dense_bias": tiny.normal(8, seed=2),
        "gain": 1 + tiny.normal(8, seed=3, scale=0.2),
        "shift": tiny.normal(8, seed=4, scale=0.2),
        "mean": tiny.normal(8, seed=5, scale=0.2),
        "var": 1 + tiny.uniform(8, seed=6, scale=0.5),
        "each": tiny.normal(8, 1, 3, 3, seed=7, scale=0.3),
        "grouped": tiny.normal(6, 4, 3, 3, seed=8, scale=0.3),
        "head": tiny.normal(3, 6, seed=9),
        "head_bias": tiny.normal(3, seed=10),
    }
    return tiny.proto(text, weights=weights)


def perceptron():
    text = """
    g (float[N,6] x) => (float[N,2] y) {
        a = MatMul (x, w1)
        b = Add (a, b1)
        c = Tanh (b)
        y = MatMul (c, w2)
    }"""
    weights = {
        "w1": tiny.normal(6, 16, seed=1, scale=0.5),
        "b1": tiny.normal(16, seed=2, scale=0.1),
        "w2": tiny.normal(16, 2, seed=3, scale=0.5),
    }
    return tiny.proto(text, weights=weights)


class Reader(CalibrationDataReader):
    def __init__(self, arrays):
        self.left = iter(arrays)

    def get_next(self):
        return next(self.left, None)


def quantize(folder, proto, **how):
    source, made = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(proto, source)
    reader = Reader([{"x": tiny.normal(4, 4, 9, 8, seed=n)} for n in range(8)])
    quantize_static(source, made, reader, quant_format=QuantFormat.QDQ, per_channel=True, **how)
    return onnx.load(made)


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    return quantize(tmp_path_factory.mktemp("int8"), small_images())


@pytest.mark.parametrize("batch", [1, 5])
def test_a_function_computes_what_onnxruntime_does_for_any_batch(function, batch):
    proto, x = small_images(), tiny.normal(batch, 4, 9, 8)
    made = function.GraphFunction(proto)({"x": x})
    np.testing.assert_allclose(made["y"], onnx_run(proto, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_gradients_of_every_weight_agree_with_finite_differences(function, tf):
    graph = function.GraphFunction(small_images())
    x, aim = tiny.normal(3, 4, 9, 8), tiny.normal(3, 3, seed=5)

    def loss():
        return tf.reduce_sum(graph({"x": x})["y"] * aim)

    with tf.GradientTape() as tape:
        made = loss()
    gradients = tape.gradient(made, graph.variables_by_name)
    for name, variable in graph.variables_by_name.items():
        way = tiny.normal(*variable.shape, seed=3) * 1e-3
        variable.assign_add(way)
        above = loss()
        variable.assign_sub(2 * way)
        slope = (above - loss()) / 2
        variable.assign_add(way)
        np.testing.assert_allclose(
            np.sum(gradients[name] * way), slope, rtol=0.03, atol=3e-5, err_msg=name
        )


def test_statistics_of_normalization_and_single_numbers_are_not_learned(function):
    names = function.GraphFunction(small_images()).variables_by_name.keys()
    assert {"gain", "shift", "dense", "head_bias"} <= names
    assert not {"mean", "var"} & names


def test_a_tap_has_onnx_layout_and_a_gradient(function, tf):
    proto, x = small_images(), tiny.normal(2, 4, 9, 8)
    with tf.GradientTape() as tape:
        made = function.GraphFunction(proto)({"x": x}, taps=["b", "q", "e"])
        loss = tf.reduce_sum(made["y"])
    proto.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in "bqe")
    for name, value in zip("bqe", onnx_run(proto, {"x": x}, list("bqe")), strict=True):
        np.testing.assert_allclose(made[name], value, rtol=1e-5, atol=1e-5)
    head = numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == "head"))
    gradients = tape.gradient(loss, {n: made[n] for n in "bqe"})
    np.testing.assert_allclose(gradients["q"], np.tile(head.sum(0), (2, 1)), rtol=1e-5)
    assert gradients["b"].shape == made["b"].shape
    assert np.abs(gradients["b"]).max() > 0


def test_steps_lower_the_loss_and_the_written_model_gives_what_the_function_gave(function, tf):
    proto, graph = perceptron(), function.GraphFunction(perceptron())
    x, wanted = tiny.normal(32, 6), tiny.normal(32, 2, seed=7)
    variables = list(graph.variables_by_name.values())

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(graph({"x": x})["y"] - wanted))
        for variable, slope in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.05 * slope)
        return loss

    losses = [float(step(x)) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]
    learned = function.write_back(proto, graph)
    assert learned.SerializeToString() != proto.SerializeToString()
    np.testing.assert_allclose(
        onnx_run(learned, {"x": x})[0], graph({"x": x})["y"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("make", [small_images, perceptron])
def test_an_untrained_model_is_written_back_unchanged(function, make):
    proto = make()
    made = function.write_back(proto, function.GraphFunction(proto))
    assert made.SerializeToString() == proto.SerializeToString()


def test_weights_of_16_bits_are_written_back_in_16_bits(function):
    weight = tiny.normal(6, 2).astype(np.float16)
    proto = tiny.proto(
        "g (float16[N,6] x) => (float16[N,2] y) { y = MatMul (x, w) }", weights={"w": weight}
    )
    graph = function.GraphFunction(proto)
    assert function.write_back(proto, graph).SerializeToString() == proto.SerializeToString()
    graph.variables_by_name["w"].assign(2 * weight.astype(np.float32))
    written = numpy_helper.to_array(function.write_back(proto, graph).graph.initializer[0])
    assert written.dtype == np.float16
    np.testing.assert_array_equal(written, 2 * weight)


def test_an_int8_model_rounds_as_onnxruntime_does_unfused(function, int8):
    x = tiny.normal(4, 4, 9, 8, seed=20)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(int8.SerializeToString(), options)
    wanted = session.run(None, {"x": x})[0]
    made = function.GraphFunction(int8)({"x": x})["y"].numpy()
    assert tiny.sqnr_db(wanted, made) > 45  # a rare value at a tie rounds the other way


def test_an_int8_model_written_back_unchanged_is_the_same_file(function, int8):
    for learn_scales in (False, True):
        graph = function.GraphFunction(int8, learn_scales=learn_scales)
        assert function.write_back(int8, graph).SerializeToString() == int8.SerializeToString()


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """An int8 model that computes the scales of its biases, and the same with them stored."""
    folder = tmp_path_factory.mktemp("wide")
    text = "g (float[N,6] x) => (float[N,32] y) { h = Gemm(x, w, b) r = Relu(h) y = Gemm(r, v, c) }"
    weights = {
        "w": tiny.normal(6, 32, scale=0.5),
        "b": tiny.normal(32),
        "v": tiny.normal(32, 32, scale=0.2),
        "c": tiny.normal(32, seed=1),
    }
    data = tiny.samples(folder, x=tiny.normal(16, 6))
    source = tiny.model(folder, text, weights=weights)
    made = onnx.load(tiny.apply("quantize-static", source, folder, data).path)
    plain = onnx.ModelProto()
    plain.CopyFrom(made)
    store_bias_scales(plain)
    return made, plain


@pytest.mark.parametrize("scales", [False, True])
def test_biases_whose_scales_are_computed_are_learned_and_written_back(function, wide, scales):
    graphs = [function.GraphFunction(each, learn_scales=scales) for each in wide]
    names = graphs[0].variables_by_name.keys()
    assert names == graphs[1].variables_by_name.keys()
    kinds = {t.name: t.data_type for t in wide[0].graph.initializer}
    assert sum(kinds[name] == TensorProto.INT32 for name in names) == 2
    assert graphs[0].scales_by_name.keys() == graphs[1].scales_by_name.keys()
    unchanged = function.write_back(wide[0], graphs[0])
    assert unchanged.SerializeToString() == wide[0].SerializeToString()

    for graph in graphs:
        for variable in (*graph.variables_by_name.values(), *graph.scales_by_name.values()):
            variable.assign(1.25 * variable)
    written = [function.write_back(*each) for each in zip(wide, graphs, strict=True)]

    assert list(written[0].graph.node) == list(wide[0].graph.node)
    x = tiny.normal(5, 6, seed=9)
    before, after = (onnx_run(each, {"x": x})[0] for each in written)
    np.testing.assert_array_equal(before, after)
    assert np.abs(after - onnx_run(wide[1], {"x": x})[0]).max() > 0.1


def distill(function, tf, student, teacher, scales):
    """Loss before and after some steps, and the learned model."""
    graph, original = function.GraphFunction(student, learn_scales=scales), teacher
    x = tiny.normal(32, 4, 9, 8, seed=30)
    wanted = onnx_run(original, {"x": x})[0]
    weights = list(graph.variables_by_name.values())
    learned = weights + list(graph.scales_by_name.values())
    optimizer = tf.keras.optimizers.Adam(2e-3)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(graph({"x": x})["y"] - wanted))
        optimizer.apply_gradients(zip(tape.gradient(loss, learned), learned, strict=True))
        return loss

    losses = [float(step()) for _ in range(40)]
    return losses, graph, function.write_back(student, graph), x


@pytest.mark.parametrize("scales", [False, True])
def test_a_coarse_model_learns_and_stays_integers(function, tf, int8, scales):
    coarse = onnx.ModelProto()
    coarse.CopyFrom(int8)
    for tensor in coarse.graph.initializer:  # 3 bits of 8, with steps as much larger
        if tensor.name in ("dense_quantized", "each_quantized", "grouped_quantized"):
            array = np.clip(np.rint(numpy_helper.to_array(tensor) / 32), -4, 3)
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.int8), tensor.name))
        if tensor.name in ("dense_scale", "each_scale", "grouped_scale"):
            array = numpy_helper.to_array(tensor) * np.float32(32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    losses, graph, learned, x = distill(function, tf, coarse, small_images(), scales)
    assert min(losses[-5:]) < 0.6 * losses[0]
    stored = {t.name: t for t in learned.graph.initializer}
    weight = numpy_helper.to_array(stored["dense_quantized"])
    assert weight.dtype == np.int8
    assert weight.min() >= -4
    assert weight.max() <= 3
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(learned.SerializeToString(), options)
    made = session.run(None, {"x": x})[0]
    assert tiny.sqnr_db(graph({"x": x})["y"], made) > 25
    fused = onnx_run(learned, {"x": x})[0]
    assert tiny.sqnr_db(made, fused) > 25  # biases follow the scales of their layers


def test_the_gradient_of_a_scale_is_that_of_learned_step_sizes(function, tf):
    text = """
    g (float[4] x) => (float[4] y) {
        h = Mul (x, one)
        q = QuantizeLinear (h, s, z)
        y = DequantizeLinear (q, s, z)
    }"""
    one = np.float32(1)
    proto = tiny.proto(text, weights={"s": np.float32(0.5), "z": np.int8(0), "one": one})
    graph = function.GraphFunction(proto, learn_scales=True)
    x = tf.constant([0.6, -1.2, 100.0, -100.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(graph({"x": x})["y"])
    by_input, by_scale = tape.gradient(loss, [x, graph.scales_by_name["s"]])
    np.testing.assert_array_equal(by_input, [1, 1, 0, 0])
    rounding = (1 - 1.2) + (-2 + 2.4) + 127 - 128
    np.testing.assert_allclose(by_scale, rounding / np.sqrt(127), rtol=1e-4)


def test_weights_of_4_bits_in_blocks_are_read_and_written(function):
    proto = tiny.proto(
        """g (float[N,8] x) => (float[N,2] y) {
            w = DequantizeLinear <axis=0, block_size=4> (q, s)
            y = MatMul (x, w)
        }""",
        weights={"s": tiny.uniform(2, 2) ** 2 + 0.1},
        opset=21,
        ir=10,
    )
    integers = np.random.default_rng(0).integers(-8, 8, (8, 2))
    nibbles = helper.make_tensor("q", TensorProto.INT4, (8, 2), integers.ravel().tolist())
    proto.graph.initializer.append(nibbles)
    graph, x = function.GraphFunction(proto), tiny.normal(3, 8)
    np.testing.assert_allclose(graph({"x": x})["y"], onnx_run(proto, {"x": x})[0], rtol=1e-5)
    graph.variables_by_name["q"].assign(-graph.variables_by_name["q"])
    written = function.write_back(proto, graph).graph.initializer[-1]
    assert written.data_type == TensorProto.INT4
    expected = np.minimum(-integers, 7)
    np.testing.assert_array_equal(numpy_helper.to_array(written).astype(int), expected)


def test_wrong_inputs_are_refused_by_name(function):
    graph = function.GraphFunction(perceptron())
    with pytest.raises(UserError, match=r"input x is missing; given are z"):
        graph({"z": 1})
    with pytest.raises(UserError, match=r"input x was given shape \(2, 7\)"):
        graph({"x": tiny.normal(2, 7)})
    with pytest.raises(UserError, match="nowhere"):
        graph({"x": tiny.normal(2, 6)}, taps=["nowhere"])


def test_an_operator_without_an_entry_is_refused_by_name():
    from edgekit.tflite.ir import LiteGraph, Op
    from edgekit.training.tf_function.execute import check_supported

    op = Op(op_type="HASHTABLE", inputs=[], outputs=[], origin="LabelEncoder codes")
    with pytest.raises(PassRefused, match="LabelEncoder codes: HASHTABLE"):
        check_supported(LiteGraph(ops=[op], inputs={}, outputs={}))


def test_values_that_are_not_finite_are_not_written(function):
    graph = function.GraphFunction(perceptron())
    graph.variables_by_name["b1"].assign(np.full(16, np.nan, np.float32))
    with pytest.raises(UserError, match="b1 contains NaN"):
        function.write_back(perceptron(), graph)


@pytest.mark.zoo
def test_a_real_model_agrees_with_onnxruntime(function, zoo):
    proto = onnx.load(zoo / "ic-resnet8" / "model.onnx")
    x = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    wanted = onnx_run(proto, {"input": x})[0]
    made = function.GraphFunction(proto)({"input": x})["Identity:0"]
    np.testing.assert_allclose(made, wanted, atol=5e-6)
