"""Masks, probabilities and decisions made of a model's scores."""

import numpy as np
import pytest
from scipy import special

from edgekit_agent.failures import AgentError
from edgekit_agent.postprocess import postprocess
from edgekit_agent.scoring import Postprocess

SCORES = np.random.default_rng(0).normal(0, 5, (3, 6, 8)).astype(np.float32)
MASK = {"y": np.zeros((6, 8), np.uint8)}


@pytest.mark.parametrize("targets", [MASK, {}], ids=["with labels", "without labels"])
@pytest.mark.parametrize("is_last", [False, True], ids=["channels first", "channels last"])
def test_argmax_finds_the_class_axis(targets, is_last):
    scores = np.moveaxis(SCORES, 0, -1) if is_last else SCORES
    mask = postprocess({"logits": scores}, targets, Postprocess("argmax"))["mask"]
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask, SCORES.argmax(axis=0))


def test_argmax_takes_the_axis_that_the_labels_lack_though_another_is_shorter():
    scores = np.random.default_rng(1).normal(size=(20, 5, 4))
    mask = postprocess({"logits": scores}, {"y": np.zeros((5, 4))}, Postprocess("argmax"))["mask"]
    np.testing.assert_array_equal(mask, scores.argmax(axis=0))


@pytest.mark.parametrize(
    ("shape", "said"), [((3, 6, 7), "no class axis"), ((1, 6, 8), "a single channel")]
)
def test_argmax_refuses_scores_that_do_not_fit_the_labels(shape, said):
    with pytest.raises(AgentError, match=said):
        postprocess({"logits": np.zeros(shape)}, MASK, Postprocess("argmax"))


@pytest.mark.parametrize("is_last", [False, True], ids=["channels first", "channels last"])
def test_softmax_sums_to_1_over_the_classes(is_last):
    scores, axis = (np.moveaxis(SCORES, 0, -1), -1) if is_last else (SCORES, 0)
    found = postprocess({"logits": scores}, MASK, Postprocess("softmax"))["logits"]
    np.testing.assert_allclose(found, special.softmax(scores.astype(float), axis), rtol=1e-13)


def test_softmax_of_tokens_is_over_the_last_axis():
    logits = np.random.default_rng(2).normal(size=(5, 9))
    found = postprocess({"logits": logits}, {}, Postprocess("softmax"))["logits"]
    np.testing.assert_allclose(found, special.softmax(logits, axis=-1), rtol=1e-13)


def test_sigmoid_neither_overflows_nor_changes_outputs_that_are_not_named():
    outputs = {"score": np.array([-1e4, 0.0, 1e4]), "state": np.array([7.0])}
    found = postprocess(outputs, {}, Postprocess("sigmoid", outputs=("score",)))
    np.testing.assert_array_equal(found["score"], [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(found["state"], [7.0])


def test_threshold_decides_each_value():
    found = postprocess(
        {"score": np.array([0.2, 0.3, 0.31])}, {}, Postprocess("threshold", threshold=0.3)
    )
    np.testing.assert_array_equal(found["score"], [0, 0, 1])


def test_unknown_kinds_and_outputs_are_named():
    with pytest.raises(AgentError, match="unknown post-processing 'argmin'; known: argmax"):
        postprocess({"a": SCORES}, {}, Postprocess("argmin"))
    with pytest.raises(AgentError, match="no output 'b', only a"):
        postprocess({"a": SCORES}, {}, Postprocess("argmax", outputs=("b",)))
