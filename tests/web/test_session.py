"""Sessions in the page answer as onnxruntime does."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.web.node_calls import NodeError, Numbers, run_session

_SIDE, _CLASSES = 12, 7


def build_classifier(seed: int = 0, *, batch: int | str = "batch") -> bytes:
    """Build a small convolutional classifier of images [batch, 3, 12, 12]."""
    random = np.random.default_rng(seed)
    weights = {
        "w": random.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "b": random.normal(0, 0.1, 8).astype(np.float32),
        "v": random.normal(0, 0.8, (8, _CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, _CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def describe_classifier(model: bytes, **changes: Any) -> dict[str, Any]:
    """Return the settings of the classifier."""
    return {
        "name": "classifier",
        "model": "model.onnx",
        "digest": hashlib.sha256(model).hexdigest(),
        "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, _SIDE, _SIDE]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", _CLASSES]}],
        "images": {
            "resize": 16, "crop": _SIDE, "mode": None, "size": None, "pad": 114, "centered": True,
            "reversed_channels": False, "gray": False, "keeps_sizes": False,
        },
        "preprocess": {
            "scale": 1 / 255, "mean": [0.48, 0.45, 0.4], "std": [0.23, 0.22, 0.25],
            "channels_first": True,
        },
        "answer": {"kind": "class", "logits": True},
        "class_names": ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"],
        **changes,
    }  # fmt: skip


def make_image(random: np.random.Generator, width: int, height: int) -> dict[str, Any]:
    """Return an image of blurred noise as a page has it."""
    small = random.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((width, height))).copy()
    pixels[:, :, 3] = 255
    return {"width": width, "height": height, "data": Numbers(pixels.ravel())}


def _run_onnxruntime(model: bytes, images: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Compute the probabilities of images with Pillow, numpy and onnxruntime."""
    session = onnxruntime.InferenceSession(model)
    rows = []
    for image in images:
        shape = (image["height"], image["width"], 4)
        opened = Image.fromarray(image["data"].values.reshape(shape)).convert("RGB")
        ratio = 16 / min(opened.size)
        opened = opened.resize((round(opened.width * ratio), round(opened.height * ratio)), 3)
        left, top = (opened.width - _SIDE) // 2, (opened.height - _SIDE) // 2
        square = np.asarray(opened.crop((left, top, left + _SIDE, top + _SIDE)), np.float32)
        scaled = (square / 255 - [0.48, 0.45, 0.4]) / [0.23, 0.22, 0.25]
        feed = {"image": scaled.transpose(2, 0, 1)[None].astype(np.float32)}
        logits = session.run(None, feed)[0][0].astype(np.float64)
        powers = np.exp(logits - logits.max())
        rows.append(powers / powers.sum())
    return np.array(rows)


def test_classifier_answers_as_onnxruntime() -> None:
    """Same classes, and probabilities that differ by at most 1e-4."""
    random = np.random.default_rng(1)
    model = build_classifier()
    sizes = [(40, 30), (30, 40), (16, 16), (200, 23), (12, 90)]
    images = [make_image(random, *size) for size in sizes]
    wanted = _run_onnxruntime(model, images)
    settings = describe_classifier(model)
    found = run_session(settings, model, images)
    assert found.input_kind == "image"
    for answer, shares in zip(found.predictions, wanted, strict=True):
        order = np.argsort(-shares)[:5]
        assert answer["kind"] == "class"
        assert [each["index"] for each in answer["classes"]] == order.tolist()
        assert answer["result"] == settings["class_names"][order[0]]
        np.testing.assert_allclose(
            [each["confidence"] for each in answer["classes"]], shares[order], atol=1e-4
        )
        assert answer["confidence"] == answer["classes"][0]["confidence"]
        assert answer["ms"] == pytest.approx(sum(answer["timings"].values()), abs=0.1)


def test_fixed_batch_is_filled() -> None:
    """A model of four samples at a time answers one."""
    random = np.random.default_rng(2)
    free, fixed = build_classifier(), build_classifier(batch=4)
    settings = describe_classifier(fixed)
    for name in ("inputs", "outputs"):
        settings[name][0]["shape"][0] = 4
    images = [make_image(random, 20, 20)]
    [one] = run_session(describe_classifier(free), free, images).predictions
    [other] = run_session(settings, fixed, images).predictions
    assert one["result"] == other["result"]
    assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-6)


def test_batches_that_do_not_fit_the_memory_are_one_clear_error() -> None:
    """Of a file that was changed; the model itself would be refused later."""
    model = build_classifier()
    settings = describe_classifier(model)
    settings["inputs"][0]["shape"][0] = (1 << 31) - 1
    image = make_image(np.random.default_rng(0), 20, 20)
    [found] = run_session(settings, model, [image]).predictions
    assert isinstance(found, NodeError)
    assert "too large" in found.message


def make_golden(model: bytes, count: int = 2) -> dict[str, Any]:
    """Return golden samples with the outputs of onnxruntime."""
    inputs = np.random.default_rng(3).normal(size=(count, 3, _SIDE, _SIDE)).astype(np.float32)
    outputs = onnxruntime.InferenceSession(model).run(None, {"image": inputs})[0]
    return {"inputs": {"image": inputs}, "outputs": {"logits": outputs}}


def test_self_check_agrees_with_onnxruntime() -> None:
    """The relative error is far below 1e-4, also of an output that is given at some positions."""
    model = build_classifier()
    golden = make_golden(model)
    picked = {"logits": golden["outputs"]["logits"][:, [0, 2, 4]]}
    for given in (golden, {"inputs": golden["inputs"], "picked": picked}):
        found = run_session(describe_classifier(model), model, golden=given)
        assert found.health["healthy"], found.health
        assert found.health["error"] < 1e-4
        assert found.health["samples"] == 2


def test_self_check_tells_that_the_browser_computes_otherwise() -> None:
    """Outputs of another model are an error of the browser."""
    model, other = build_classifier(), build_classifier(seed=5)
    found = run_session(describe_classifier(model), model, golden=make_golden(other))
    assert not found.health["healthy"]
    assert found.health["error"] > 0.1
    assert "logits" in found.health["detail"]


def _break(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    inner = settings
    for name in parents:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[last] = value
    return settings


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("inputs", []),
        ("inputs", None),
        ("inputs", {"a": 1}),
        ("inputs.0.dtype", "complex128"),
        ("inputs.0.dtype", "constructor"),
        ("inputs.0.shape", [-1]),
        ("inputs.0.name", "other"),
        ("images.size", [1]),
        ("images.size", [16_000, 16_000]),
        ("images.resize", 1e9),
        ("images.crop", 0.5),
        ("images.gray", "yes"),
        ("preprocess.mean", ["a"]),
        ("preprocess.scale", None),
        ("answer.kind", "__proto__"),
        ("answer.output", "other"),
        ("class_names", [1]),
        ("digest", "0" * 64),
        ("feeding", {"states": [{"name": "x", "output": "y", "axis": 0}]}),
        ("feeding", {"constants": [{"name": "image", "value": {"dtype": "int8", "shape": [2]}}]}),
        ("postprocess", {"kind": "toString"}),
    ],
)  # fmt: skip
def test_damaged_settings_are_one_clear_error(path: str, value: object) -> None:
    """Each wrong field is refused before the model runs."""
    model = build_classifier()
    with pytest.raises(NodeError) as caught:
        run_session(_break(describe_classifier(model), path, value), model)
    assert caught.value.kind in ("bad_job", "corrupt"), caught.value
    assert caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '{"inputs": 1e999}'])
def test_settings_that_are_no_settings_are_one_clear_error(text: str) -> None:
    """Also text that is no JSON."""
    with pytest.raises(NodeError, match=r"settings\.json"):
        run_session(text, build_classifier())


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "packed"])
def test_damaged_models_are_one_clear_error(damage: str) -> None:
    """Whether or not the digest is that of the damaged file."""
    model = build_classifier()
    data = {
        "empty": b"",
        "text": b"<html>not found</html>",
        "truncated": model[: len(model) // 2],
        "packed": b"ekp1" + bytes(range(200)),
    }[damage]
    for digest in (hashlib.sha256(model).hexdigest(), hashlib.sha256(data).hexdigest()):
        with pytest.raises(NodeError) as caught:
            run_session(describe_classifier(model, digest=digest), data)
        assert caught.value.kind in ("bad_job", "corrupt", "model_failed")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("inputs", {}),
        ("inputs", {"other": np.zeros((1, 1), np.float32)}),
        ("outputs", {"logits": np.zeros((0, 7), np.float32)}),
        ("outputs", {"other": np.zeros((2, 7), np.float32)}),
        ("outputs", {"logits": np.zeros((3, 7), np.float32)}),
        ("outputs", {"logits": {"dtype": "float32", "shape": [1 << 40], "data": ""}}),
        ("outputs", {"logits": {"dtype": "float32", "shape": [2, 7], "data": "AAAA"}}),
        ("inputs", {"image": np.zeros((2, 5), np.float32)}),
    ],
)
def test_damaged_golden_samples_are_one_clear_error(path: str, value: object) -> None:
    """Each wrong part of golden.json is refused."""
    model = build_classifier()
    golden = {**make_golden(model), path: value}
    health = run_session(describe_classifier(model), model, golden=golden).health
    assert isinstance(health, NodeError)
    assert health.kind == "bad_job", health


def test_samples_that_are_no_images_are_one_clear_error() -> None:
    """In words for people who use the app."""
    model = build_classifier()
    samples: list[Any] = [
        None, "text", {}, {"width": 2, "height": 2, "data": Numbers(np.zeros(3, np.uint8))},
        {"width": 0, "height": 0, "data": Numbers(np.zeros(0, np.uint8))},
    ]  # fmt: skip
    for found in run_session(describe_classifier(model), model, samples).predictions:
        assert isinstance(found, NodeError)
        assert found.kind == "bad_sample"
        assert "not an image" in found.message
