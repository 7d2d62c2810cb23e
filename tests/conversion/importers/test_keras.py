"""Keras files, SavedModels and TensorFlow functions become graphs with the same outputs."""

import json

import numpy as np
import onnx
import pytest

from edgekit.onnx_graph.io import open_session
from tests.builders.sources.convert_all import close, convert_all

SOURCES = {
    "two": "two.keras",
    "two_h5": "two.h5",
    "words": "words.keras",
    "old": "old.h5",
    "old_folder": "old",
    "lambda": "lambda.keras",
    "lambda_trusted": "trusted lambda.keras",
    "own": "own.keras",
    "weights": "alone.weights.h5",
    "text_file": "text.h5",
    "cut": "cut.keras",
    "several": "signed",
    "one": "signed#one",
    "second": "signed#two",
    "no_such": "signed#three",
    "function": "keras_models:function",
    "anything": "keras_models:anything",
    "with_example": "keras_models:anything_with_example",
    "text": "keras_models:text",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    return convert_all(folder, "keras_models", SOURCES)


@pytest.mark.parametrize("name", ["two", "two_h5"])
def test_inputs_and_outputs_keep_the_names_and_the_order_of_keras(results, name):
    made = results[name]
    assert made.inputs == ["zebra float32 [batch, 4]", "apple float32 [batch, 3]"]
    assert made.outputs == ["second float32 [batch, 2]", "first float32 [batch, 3]"]
    known = np.load(made.path.parents[2] / "two.npz")
    second, first = made.run(zebra=known["zebra"], apple=known["apple"])
    close(known["second"], second)
    close(known["first"], first)


def test_gelu_runs_without_the_operator_that_onnxruntime_lacks(results):
    assert "Erf" in results["two"].ops
    assert "Erfc" not in results["two"].ops


def test_what_is_read_by_the_keras_that_wrote_it_has_the_same_shape(results):
    for name in ("old", "old_folder"):
        assert results[name].inputs == ["image float32 [batch, 8, 8, 3]"]
        assert results[name].outputs == ["out float32 [batch, 3]"]


def test_a_length_that_is_free_stays_free(results):
    made = results["words"]
    assert made.inputs == ["ids int32 [batch, ids_1]"]
    for shape in ((1, 5), (3, 9)):
        (topic,) = made.run(ids=np.ones(shape, np.int32))
        assert topic.shape == (shape[0], 2)


def test_one_signature_of_several_is_named(results):
    assert results["one"].inputs == ["x float32 [batch, 4]"]
    assert results["second"].inputs == ["x float32 [2, 4]"]
    x = np.ones((2, 4), np.float32)
    close(results["one"].run(x=x)[0] + 1, results["second"].run(x=x)[0])


def test_arguments_and_keys_of_a_function_are_names(results):
    made = results["function"]
    assert [spec.partition(" ")[0] for spec in made.inputs] == ["left", "right"]
    ones = np.ones((3, 2), np.float32)
    by_name = dict(
        zip((spec.partition(" ")[0] for spec in made.outputs), made.run(left=ones, right=ones),
            strict=True)
    )  # fmt: skip
    assert by_name["a"].max() == 2
    assert by_name["b"].max() == 0


def test_example_inputs_take_the_place_of_a_signature(results):
    assert results["with_example"].inputs == ["x float32 [batch, 4]"]


def test_a_lambda_is_code_and_runs_only_if_trusted(results):
    (y,) = results["lambda_trusted"].run(**{_input(results["lambda_trusted"]): ONES})
    assert y.max() == 2


ONES = np.ones((1, 4), np.float32)


def _input(made):
    return made.signature.inputs[0].name


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("lambda", "has a Lambda layer, which is Python code", "--trust-pickle"),
        ("own", "Could not locate class 'Doubled'", "module:function"),
        ("weights", "contains weights but no model", "save the whole model"),
        ("text_file", "not an HDF5 file, or truncated", "compare the file size"),
        ("cut", "not a .keras file", "compare the file size"),
        ("several", "has several signatures: one, two", "signed#one"),
        ("no_such", "no signature 'three'", "one, two"),
        ("anything", "the inputs of the tf.function are unknown", "input_signature"),
        ("text", "is text", "after the text processing"),
    ],
)
def test_sources_that_cannot_be_converted_are_refused_with_a_hint(results, name, says, hint):
    said = results[name].said
    assert says in said["error"]
    assert hint in said["hint"]
    assert "\n" not in said["error"]


def test_converted_files_contain_no_paths_and_no_inner_shapes(results):
    proto = onnx.load(results["two"].path)
    assert not proto.graph.value_info
    assert not any(node.doc_string for node in proto.graph.node)


@pytest.mark.zoo
def test_models_of_the_zoo_score_as_their_onnx_files_do(zoo, tmp_path):
    files = {
        "ic-resnet8": "model.h5",
        "kws-dscnn": "model.h5",
        "tab-breastcancer": "model.keras",
    }
    sources = {entry: str(zoo / entry / name) for entry, name in files.items()}
    for entry, made in convert_all(tmp_path, "no_models", sources).items():
        assert "error" not in made.said, json.dumps(made.said)
        samples = np.load(zoo / entry / "eval.npz")
        x = samples["x"].astype(np.float32)[:200]
        reference = open_session(zoo / entry / "model.onnx")
        (expected,) = reference.run(None, {reference.get_inputs()[0].name: x})
        (got,) = made.run(**{_input(made): x})
        close(expected, got, 1e-3)
        assert (expected.argmax(1) == got.argmax(1)).all()
