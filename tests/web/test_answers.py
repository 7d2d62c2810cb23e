"""Sessions in the page give the same answers as those on other devices."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit_agent.failures import AgentError
from edgekit_agent.model_settings import read_model_settings
from edgekit_agent.session import Session
from tests.builders.apps.model_folders import write_model_folder
from tests.web.answer_checks import compare_answers, compare_values, to_page
from tests.web.node_calls import NodeError, Numbers, call, run_session, store
from tests.web.step_vectors import iter_normalizations, make_picture, make_wav
from tests.web.vectors import list_sessions

Case = tuple[str, dict[str, Any], list[Any]]


def _list_more() -> list[Case]:
    """Return cases that the vectors lack: masks of all kinds, whole sounds, types, batches."""
    random = np.random.default_rng(3)
    picture = make_picture(20, 28, 4)
    wave = np.repeat([0.0, 0.5, 0.1, 0.8], 10)
    sound = make_wav(1, 16, 1, (wave * 32767).astype("<i2").tobytes())
    frames = "g (float[N,T] x) => (float[N,T,1] y) <int64[1] a = {2}> { y = Unsqueeze(x, a) }"
    pixels = "g (float[N,20,28,3] x) => (float[N,20,28,3] y) <float k = {0.1}> { y = Mul(x, k) }"
    channel = (
        "g (float[N,20,28,3] x) => (float[N,20,28,1] y) <int64[1] a = {3}> "
        "{ y = ReduceMean<axes = [3], keepdims = 1>(x) }"
    )
    best = "g (float[N,20,28,3] x) => (int64[N,20,28] y) { y = ArgMax<axis = 3, keepdims = 0>(x) }"
    two = (
        "g (float[N,3] x) => (float[N,3] y, bool[N,3] z, int64[N,2] n) "
        "<float zero = {0.0}, int64 ends = {2}, int64[1] axes = {0}> "
        "{ y = Neg(x) z = Greater(x, zero) s = Shape(x) e = Unsqueeze(s, axes) n = Identity(e) }"
    )
    raw = "g (uint8[N,20,28,3] x) => (float[N,20,28,3] y) { y = Cast<to = 1>(x) }"
    half = "g (float16[N,3] x) => (float16[N,3] y) { y = Neg(x) }"
    first = "g (float[3,1] x) => (float[3,1] y) { y = Neg(x) }"
    points = "g (float[N,4] x) => (int64[N,4] y) { y = Cast<to = 7>(x) }"
    constant = "g (float[N,3] x, float[3] k) => (float[N,3] y) { y = Mul(x, k) }"
    fixed = "g (float[4,3] x) => (float[4,3] y) { y = Neg(x) }"
    row = random.normal(0, 1, 3).round(3).tolist()
    scale = {"preprocess": {"scale": 1 / 255}}
    file = io.BytesIO()
    Image.fromarray(make_picture(37, 50, 2)).save(file, "PNG")
    boxed = {"preprocess": {"scale": 1 / 255, "resize_mode": "letterbox"}}
    low = {"preprocess": {"scale": 1 / 255, "resize_mode": "letterbox", "pad_position": "end"}}
    size = {"preprocess": {"scale": 0.01, "resize_mode": "stretch"}}
    argmax = {"postprocess": {"kind": "argmax"}}
    threes = {"name": "k", "value": store(np.array([1, 2, 3], np.float32))}
    sounds = {"audio": {"rate": 8000}, "answer": {"kind": "decisions", "class_axis": 1}}
    return [
        (pixels, {"answer": {"kind": "mask", "class_axis": 2}, **scale}, [picture]),
        (pixels, {"answer": {"kind": "mask"}, **argmax}, [picture]),
        (pixels, {"answer": {"kind": "mask", "class_axis": 1}, **argmax}, [picture]),
        (channel, {"answer": {"kind": "mask", "threshold": 0.4123}, **scale}, [picture]),
        (channel, {"answer": {"kind": "mask", "class_axis": 2, "logits": True}, **size},
         [picture]),
        (pixels, {"answer": {"kind": "mask", "class_axis": 2}, **boxed}, [file.getvalue()]),
        (pixels, {"answer": {"kind": "mask", "class_axis": 2}, **low}, [file.getvalue()]),
        (pixels, {"answer": {"kind": "mask", "class_axis": 2}, **size}, [file.getvalue()]),
        (best, {"answer": {"kind": "mask"}}, [picture]),
        (raw, {"answer": {"kind": "mask", "class_axis": 2}}, [picture, make_picture(40, 30, 1)]),
        (frames, {**sounds, "class_names": ["no", "yes"]}, [sound]),
        (frames, {"audio": {"rate": 8000, "samples": 60}, "answer": {"kind": "values"}}, [sound]),
        (frames, {**sounds, "audio": {"rate": 8000, "samples": 25}}, [sound]),
        (two, {}, [row, {"x": row}, {"x": [row]}, {"y": row}, {}, [row, row], ["a"]]),
        (two, {}, [[[1], [2, 3]], [], {"x": None}, 4, [[1, 2, 3, 4]]]),
        (two, {"postprocess": {"kind": "threshold", "outputs": ["y"]}}, [row]),
        (two, {"postprocess": {"kind": "softmax", "outputs": ["y"]},
               "answer": {"kind": "class", "output": "y"}}, [row, [1.0, 1.0, 1.0]]),
        (two, {"postprocess": {"kind": "sigmoid", "outputs": ["y"]},
               "answer": {"kind": "labels", "output": "y", "threshold": 0.4}}, [row]),
        (half, {"answer": {"kind": "class", "logits": True}}, [row, [1e6, 0, 0], [1e-7, 2e-8, 1]]),
        (first, {"input_settings": {"axes": {"x": 1}}}, [row]),
        (first, {"input_settings": {"axes": {"x": -1}}}, [row, [[1], [2], [3]]]),
        (points, {"answer": {"kind": "text", "ignore": 0}}, [[104, 105, 0, 32], [-1, 0, 0, 0]]),
        (constant, {"input_settings": {"axes": {"x": 0}, "constants": [threes]}}, [row]),
        (fixed, {"answer": {"kind": "class", "logits": True}}, [row]),
        ("g (float[N,3] x) => (float[N,3] y) { y = Log(x) }", {"answer": {"kind": "class"}},
         [[1, 2, 3], [-1, 0, 1], [0, 1, 2]]),
    ]  # fmt: skip


_CASES = [*list_sessions(), *_list_more()]


def _predict_here(folder: Path, samples: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return the settings of a model, and its answers here; the kind of the error of a refusal."""
    wanted: list[Any] = []
    with Session(str(folder)) as session:
        for sample in samples:
            try:
                wanted.append(session.predict(sample))
            except AgentError as error:
                wanted.append(error.failure.kind)
        return dataclasses.asdict(session.settings), wanted


@pytest.mark.parametrize("number", range(len(_CASES)))
def test_answers_and_refusals_are_those_of_other_devices(tmp_path: Path, number: int) -> None:
    """The same fields and labels, and numbers that differ by at most 1e-4."""
    text, fields, samples = _CASES[number]
    opset = 12 if "axes = [" in text else 17
    folder = write_model_folder(tmp_path / "model", text, opset=opset, **fields)
    settings, wanted = _predict_here(folder, samples)
    model = (folder / "model.onnx").read_bytes()
    found = run_session(settings, model, [to_page(sample) for sample in samples])
    compare_answers(found.predictions, wanted)


def test_blocks_of_a_stream_are_answered_as_on_other_devices(tmp_path: Path) -> None:
    """Of any length; states and times go on from block to block; a wrong one changes nothing."""
    text, fields, _ = next(case for case in list_sessions() if "audio" in case[1])
    folder = write_model_folder(tmp_path / "model", text, opset=12, **fields)
    random = np.random.default_rng(0)
    lengths = (4, 3, 20, 1, 1, 40)
    whole = random.uniform(-1, 1, sum(lengths)) * np.linspace(0, 1, sum(lengths)) ** 2
    waves = np.split(whole.astype(np.float32), np.cumsum(lengths)[:-1])
    with Session(str(folder)) as session:
        settings = dataclasses.asdict(session.settings)
        stream = session.stream()
        wanted = [stream.predict(wave) for wave in waves]
    blocks: list[Any] = [{"wave": Numbers(wave), "rate": 8000} for wave in waves]
    blocks.insert(2, {"wave": Numbers(waves[0]), "rate": 16_000})
    answers = run_session(settings, (folder / "model.onnx").read_bytes(), blocks=blocks).answers
    assert isinstance(answers[2], NodeError)
    assert answers[2].kind == "bad_sample"
    del answers[2]
    labels = {decision["label"] for each in wanted for decision in each["result"]}
    assert labels == {"quiet", "loud"}
    for answer, expected in zip(answers, wanted, strict=True):
        compare_values(answer["result"], expected["result"])


_SUM = (
    "g (int64[N,T] input_ids, int64[N,T] attention_mask) => (float[N,2] y) "
    "<float[1,2] w = {0.5,-0.25}, int64[1] axis = {1}> "
    "{ m = Mul(input_ids, attention_mask) f = Cast<to = 1>(m) "
    "s = ReduceMean<axes = [1], keepdims = 1>(f) y = MatMul(s, w) }"
)
_NEXT = (
    "g (int64[N,T] input_ids) => (float[N,T,6] y) <float[6] w = {3,1,4,1,5,9}, "
    "int64[1] axis = {2}> { f = Cast<to = 1>(input_ids) u = Unsqueeze<axes = [2]>(f) "
    "s = Sin(u) y = Mul(s, w) }"
)


@pytest.mark.parametrize("length", [None, 4, 12])
@pytest.mark.parametrize("kind", ["classes", "next token"])
def test_texts_are_answered_as_on_other_devices(
    tmp_path: Path, kind: str, length: int | None
) -> None:
    """Texts and pairs, padded, cut or as long as they are; classes, or the token that follows."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    words = {"[UNK]": 0, "is": 1, "well": 2, "patient": 3, "[SEP]": 4, "The": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["[SEP]"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", 4)]
    )
    is_next = kind == "next token"
    roles = {"input_ids": "input_ids"}
    if not is_next:
        roles["attention_mask"] = "attention_mask"
    text = {"tokenizer": "tokenizer.json", "length": length, "pad_id": 1, "roles": roles}
    folder = write_model_folder(
        tmp_path / "model",
        _NEXT if is_next else _SUM,
        opset=12,
        text={**text, "next_tokens": is_next},
        answer={"kind": "class", "logits": True},
        class_names=[] if is_next else ["no", "yes"],
    )
    made.save(str(folder / "tokenizer.json"))
    samples = [
        "The patient is well.",
        "",
        {"text": "well", "text_pair": "The patient"},
        {},
        "is " * 9,
    ]
    settings, wanted = _predict_here(folder, samples)
    model = (folder / "model.onnx").read_bytes()
    found = run_session(settings, model, samples, tokenizer=made.to_str())
    assert found.input_kind == "text"
    compare_answers(found.predictions, wanted)
    with pytest.raises(NodeError, match=r"no tokenizer\.json"):
        run_session(settings, model)


def test_large_constants_come_from_the_golden_samples(tmp_path: Path) -> None:
    """The settings name them only; without golden samples, the error says what is missing."""
    text = "g (float[N,3] x, float[3] k) => (float[N,3] y) { y = Mul(x, k) }"
    left_out = {"dtype": "float32", "shape": [3], "data": ""}
    feeding = {"axes": {"x": 0}, "constants": [{"name": "k", "value": left_out}]}
    folder = write_model_folder(tmp_path / "model", text, input_settings=feeding)
    model = (folder / "model.onnx").read_bytes()
    settings = dataclasses.asdict(read_model_settings(str(folder)))
    inputs, constant = np.ones((2, 3), np.float32), np.array([1, 2, 3], np.float32)
    golden = {
        "inputs": {"x": inputs}, "constants": {"k": constant}, "outputs": {"y": inputs * constant},
    }  # fmt: skip
    found = run_session(settings, model, [[1, 1, 2]], golden=golden)
    assert found.health["healthy"]
    assert found.predictions[0]["result"] == {"y": [1, 2, 6]}
    found = run_session(settings, model, [[1, 1, 2]])
    assert isinstance(found.predictions[0], NodeError)
    assert "k" in found.predictions[0].message


def test_normalized_rows_have_the_same_bits() -> None:
    """Scale, mean and standard deviation of each channel, channels first or last."""
    for vector in iter_normalizations():
        how = vector["preprocess"]
        how["channelsFirst"] = how.pop("channels_first")
        arguments = (vector["rows"], vector["tensor"], how, vector["axis"], vector["batch"])
        found = call("feeds", "makeInput", *arguments)
        wanted = vector["expected"]
        values = np.frombuffer(base64.b64decode(wanted["data"]), wanted["dtype"])
        np.testing.assert_array_equal(found, values.reshape(wanted["shape"]))
