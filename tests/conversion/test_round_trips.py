"""Conversions to the other format and back: Keras models, real ones, ONNX's own tests."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.conversion.onnx_to_tflite.convert_graph import convert_nodes
from edgekit.conversion.onnx_to_tflite.static_shapes import fix_shapes
from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
from edgekit.tflite.flatbuffer import read_lite
from tests.builders.handmade_tflite import batch_of, by_litert, by_onnxruntime, convert
from tests.builders.tiny import normal


def network():
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    fed = layers.Input((15, 13, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same")(fed)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(x))
    x = layers.Add()([x, layers.Conv2D(8, 1, activation="relu")(x)])
    x = layers.Conv2D(12, 3, dilation_rate=2, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.AveragePooling2D(2)(x), layers.MaxPooling2D(2)(x)])
    x = layers.Flatten()(x)
    return keras.Model(fed, layers.Dense(5, activation="softmax")(x))


@pytest.fixture(scope="module")
def converted():
    """The files that TensorFlow's converter makes of a small Keras model."""
    tf = pytest.importorskip("tensorflow")
    made = {}
    for precision in ("float", "int8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(network())
        if precision == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            samples = [normal(1, 15, 13, 3, seed=seed) for seed in range(20)]
            converter.representative_dataset = lambda samples=samples: ([s] for s in samples)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Statistics for quantized inputs")  # its own export
            made[precision] = converter.convert()
    return made


def scales(graph):
    """Of all layers, without those that only round an input."""
    ops = [op for op in graph.ops if op.op_type != "QUANTIZE"]
    return {float(t.quantization.scales[0]) for op in ops for t in op.outputs if t.quantization}


def both(data, images):
    """Outputs of a file and of the ONNX model made of it."""
    graph = read_lite(data)
    made = convert_to_onnx(graph)
    (name,), (output,) = graph.inputs, graph.outputs
    onnx.checker.check_model(made, full_check=True)
    found = by_onnxruntime(made, {name: images})[output]
    return made, found, np.concatenate([by_litert(data, {name: i[None]})[output] for i in images])


def test_what_keras_exports_computes_the_same_in_batches(converted):
    made, found, expected = both(converted["float"], normal(4, 15, 13, 3, seed=50))
    assert batch_of(made) == "N"
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_keras_exports_as_integers_computes_the_same_to_one_quantum(converted):
    made, found, expected = both(converted["int8"], normal(4, 15, 13, 3, seed=50))
    assert batch_of(made) == "N"
    np.testing.assert_allclose(found, expected, atol=1.01 / 256)


def test_integers_go_to_onnx_and_back_with_the_same_scales_to_one_quantum(converted):
    graph = read_lite(converted["int8"])
    back = convert_to_tflite(convert_to_onnx(graph), {})
    assert scales(graph) == scales(read_lite(back))
    (name,), images = graph.inputs, normal(4, 15, 13, 3, seed=50)
    for image in images:
        (one,) = by_litert(converted["int8"], {name: image[None]}).values()
        (other,) = by_litert(back, {name: image[None]}).values()
        np.testing.assert_allclose(other, one, atol=1.01 / 256)


# Entry, file, largest difference, share of samples with the same first class.
REAL = {
    "a classifier of images": ("ic-resnet8", "model", 1e-5, 1.0),
    "its integers": ("ic-resnet8", "reference_int8", 0.2, 0.98),
    "a classifier of words": ("kws-dscnn", "model", 1e-5, 1.0),
    "its own integers": ("kws-dscnn", "reference_int8", 1.01 / 256, 1.0),
    "its weights in 8 bits": ("kws-dscnn", "reference_dynrange", 0.2, 0.98),
    "a table": ("tab-breastcancer", "model", 1e-5, 1.0),
}


@pytest.mark.zoo
@pytest.mark.parametrize("name", REAL)
def test_real_files_compute_the_same(zoo, name):
    entry, file, most, same = REAL[name]
    samples = np.load(zoo / entry / "eval.npz")
    given = samples[next(key for key in samples if key != "y")][:150].astype(np.float32)
    made, found, expected = both((zoo / entry / f"{file}.tflite").read_bytes(), given)
    assert batch_of(made) == "N"
    assert np.abs(found - expected).max() <= most
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= same


@pytest.mark.zoo
@pytest.mark.parametrize("entry", ["ic-resnet8", "kws-dscnn"])
def test_integers_of_real_files_are_restored(zoo, entry):
    data = (zoo / entry / "reference_int8.tflite").read_bytes()
    graph = read_lite(data)
    back = convert_to_tflite(convert_to_onnx(graph), {})
    samples = np.load(zoo / entry / "eval.npz")
    given = samples[next(key for key in samples if key != "y")][:30].astype(np.float32)
    (name,) = graph.inputs
    for sample in given:
        (one,) = by_litert(data, {name: sample[None]}).values()
        (other,) = by_litert(back, {name: sample[None]}).values()
        np.testing.assert_allclose(other, one, atol=1e-6)


SAMPLED = [
    "test_add_bcast", "test_argmax_negative_axis_keepdims_random", "test_averagepool_2d_same_lower",
    "test_averagepool_2d_strides", "test_basic_conv_with_padding", "test_batchnorm_epsilon",
    "test_clip_default_inbounds", "test_concat_3d_axis_negative_2", "test_convtranspose_pads",
    "test_conv_with_strides_and_asymmetric_padding", "test_cumsum_1d_exclusive",
    "test_depthtospace_crd_mode_example", "test_depthtospace_example", "test_div_bcast",
    "test_elu", "test_equal_bcast", "test_erf", "test_expand_dim_changed", "test_flatten_axis2",
    "test_gather_negative_indices", "test_gemm_all_attributes", "test_globalaveragepool",
    "test_hardswish", "test_instancenorm_epsilon", "test_layer_normalization_4d_axis2",
    "test_leakyrelu", "test_logsoftmax_axis_1", "test_lrn", "test_matmul_4d", "test_max_example",
    "test_maxpool_2d_dilations", "test_maxpool_2d_same_upper", "test_mean_example",
    "test_mod_broadcast", "test_not_3d", "test_pow_bcast_array", "test_prelu_broadcast",
    "test_reduce_max_keepdims_random", "test_relu", "test_round", "test_softmax_axis_0",
    "test_softplus", "test_split_equal_parts_2d_opset13", "test_squeeze", "test_sub_bcast",
    "test_tile_precomputed", "test_transpose_all_permutations_3", "test_where_example",
    "test_xor_bcast4v2d",
]  # fmt: skip


def cases():
    from benchmarks.conformance_case import load_cases as found

    return found()


def store_inputs(case):
    """A test's model with all inputs but the first one stored, and what it is fed and gives."""
    (fed, *rest), expected = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    first, *others = model.graph.input
    for value, array in zip(others, rest, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
        model.graph.input.remove(value)
    return model, {first.name: fed}, expected


@pytest.mark.parametrize("name", SAMPLED)
def test_onnx_operators_go_to_tflite_and_back(name):
    model, feeds, expected = store_inputs(cases()[name])
    made = convert(convert_nodes(fix_shapes(model, {})))
    found = by_onnxruntime(made, feeds)
    for value, want in zip(model.graph.output, expected, strict=True):
        assert found[value.name].dtype == want.dtype
        np.testing.assert_allclose(found[value.name], want, rtol=1e-3, atol=1e-5)
