"""The LiteRT adapter, on a real float file and a real int8 file of the same model."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from edgekit_agent.failures import AgentError
from edgekit_agent.runtimes.litert import load

pytestmark = pytest.mark.zoo


@pytest.fixture(scope="module")
def images(zoo):
    return np.load(zoo / "ic-resnet8" / "eval.npz")["x"][:16].astype(np.float32)


@pytest.fixture(scope="module")
def int8(zoo):
    return load(str(zoo / "ic-resnet8" / "reference_int8.tflite"), 1)


def test_the_signature_of_a_float_file_is_read(zoo):
    model = load(str(zoo / "ic-resnet8" / "model.tflite"), 1)
    (tensor,) = model.inputs
    assert tensor.dtype == "float32"
    assert tensor.shape[1:] == (32, 32, 3)
    assert ":" not in tensor.name
    assert not tensor.name.startswith("serving_default_")


def test_an_int8_file_has_float_inputs_and_outputs(int8, images):
    (tensor,) = int8.inputs
    assert tensor.dtype == "float32"
    (output,) = int8.run({tensor.name: images[:1]}).values()
    assert output.dtype == np.float32
    assert output.sum() == pytest.approx(1.0, abs=0.05)


def test_an_int8_file_also_accepts_its_integers(int8, images):
    name = int8.inputs[0].name
    (from_floats,) = int8.run({name: images[:1]}).values()
    stored = (images[:1] - 128).astype(np.int8)  # this file: scale 1, zero point -128
    (from_integers,) = int8.run({name: stored}).values()
    np.testing.assert_array_equal(from_floats, from_integers)


def test_int8_and_float_agree_on_most_images(zoo, int8, images):
    model = load(str(zoo / "ic-resnet8" / "model.tflite"), 1)
    votes = []
    for one in (model, int8):
        name = one.inputs[0].name
        made = [next(iter(one.run({name: image[None]}).values())) for image in images]
        votes.append(np.concatenate(made).argmax(axis=1))
    assert np.mean(votes[0] == votes[1]) >= 0.9


def test_an_input_of_another_shape_is_a_failure_of_the_model(int8):
    with pytest.raises(AgentError, match="litert"):
        int8.run({int8.inputs[0].name: np.zeros((1, 32, 31, 3), np.float32)})


def test_a_file_that_is_not_a_model_is_refused(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(AgentError, match="cannot load"):
        load(str(tmp_path / "model.tflite"), 1)
