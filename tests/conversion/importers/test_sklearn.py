"""Estimators of scikit-learn become graphs with the same probabilities."""

import numpy as np
import onnx
import pytest

from tests.builders.sources.convert_all import convert_all

NAMES = ("logistic", "mlp", "forest", "boosting", "histogram", "columns")
FUNCTIONS = ("unfitted", "text", "words", "margins", "regressor")
SOURCES = (
    {name: f"trusted {name}.joblib" for name in NAMES}
    | {name: f"sklearn_models:{name}" for name in FUNCTIONS}
    | {"dict": "trusted dict.pkl", "broken": "trusted text.pkl"}
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return convert_all(tmp_path_factory.mktemp("sklearn"), "sklearn_models", SOURCES)


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_gives_probabilities_first_and_then_the_label(results, name):
    made = results[name]
    assert made.inputs == ["x float32 [batch, 5]"]
    assert made.outputs == ["probabilities float32 [batch, 3]", "label int64 [batch]"]
    expected = np.load(made.path.parents[2] / "expected.npz")
    probabilities, label = made.run(x=expected["x"])
    apart = np.abs(probabilities - expected[name]).max(axis=1) > 1e-4
    assert apart.sum() <= 2, "a tree may jump where a float rounds differently"
    assert (label[~apart] == expected[f"{name}_label"][~apart]).all()


@pytest.mark.parametrize("name", ["logistic", "mlp", "columns", "margins"])
def test_linear_models_are_written_in_standard_operators(results, name):
    nodes = onnx.load(results[name].path).graph.node
    assert {node.domain for node in nodes} == {""}


def test_classes_that_are_words_drop_the_label_output_with_a_note(results):
    assert results["words"].outputs == ["probabilities float32 [batch, 3]"]
    assert "0 = maybe, 1 = no, 2 = yes" in results["words"].said["notes"][0]


def test_a_classifier_without_probabilities_gives_its_margins(results):
    assert results["margins"].outputs[0] == "probabilities float32 [batch, 2]"
    (margins, _) = results["margins"].run(x=np.ones((3, 5), np.float32))
    assert margins.shape == (3, 2)


def test_a_regressor_gives_one_value(results):
    assert results["regressor"].outputs == ["variable float32 [batch, 1]"]


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("unfitted", "not fitted", "fit it"),
        ("text", "text columns", "encode these columns"),
        ("dict", "returns a dict, which is not a supported model", "scikit-learn estimator"),
        ("broken", "not a pickle, damaged", ""),
    ],
)
def test_sources_that_cannot_be_converted_are_refused_with_a_hint(results, name, says, hint):
    said = results[name].said
    assert says in said["error"]
    assert hint in said["hint"]
