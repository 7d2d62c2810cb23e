"""Sessions answer samples of every kind as the build scored them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from edgekit.pipeline.request import Request, read_build_inputs
from edgekit_agent import Session
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import iter_batches
from tests.builders.apps.model_folders import write_model_folder
from tests.builders.apps.projects import (
    APPLICATIONS,
    RATE,
    STEP,
    build_application,
    save_wave,
)
from tests.builders.projects import PROFILE, ROOT, edgekit


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Projects by name, each built once."""
    known = {}

    def get(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            APPLICATIONS[name](folder)
            known[name] = folder, Session(str(build_application(folder)))
        return known[name]

    return get


def test_the_class_of_an_image_file_is_named_after_its_folder(projects):
    folder, session = projects("colors")
    files = sorted((folder / "eval").rglob("*.png"))
    answers = [session.predict(file) for file in files]
    assert [answer["result"] for answer in answers] == [file.parent.name for file in files]
    for answer in answers:
        assert answer["kind"] == "class"
        assert sum(each["confidence"] for each in answer["classes"]) == pytest.approx(1)
        assert answer["confidence"] == max(each["confidence"] for each in answer["classes"])
        assert answer["ms"] == pytest.approx(sum(answer["timings"].values()))
    assert json.loads(json.dumps(answers)) == answers


def test_the_bytes_of_an_image_give_the_same_answer_as_its_pixels(projects):
    folder, session = projects("colors")
    file = next((folder / "eval").rglob("*.png"))
    first = session.predict(file)
    for answer in (
        session.predict_bytes(file.read_bytes(), "image/png"),
        session.predict_bytes(file.read_bytes(), "application/octet-stream"),
        session.predict(np.asarray(Image.open(file))),
    ):
        assert answer["classes"] == first["classes"]


@pytest.mark.parametrize("name", ["finder", "stretched-finder"])
def test_boxes_are_in_pixels_of_the_original_image(projects, name):
    folder, session = projects(name)
    document = json.loads((folder / "eval" / "annotations.json").read_text())
    for image, annotation in zip(document["images"], document["annotations"], strict=True):
        answer = session.predict(folder / "eval" / image["file_name"])
        (found,) = answer["result"]
        x, y, width, height = annotation["bbox"]
        assert found["label"] == "lamp"
        assert found["index"] == 3
        # A pixel of the model's input is up to 1.5 pixels of the file.
        assert found["box"] == pytest.approx([x, y, x + width, y + height], abs=2.5)
        assert answer["confidence"] == found["confidence"]


def test_the_runs_of_a_mask_are_those_of_the_model(projects):
    folder, session = projects("regions")
    for file in sorted((folder / "eval" / "images").glob("*.png")):
        result = session.predict(file)["result"]
        runs = np.array(result["runs"]).reshape(-1, 2)
        mask = np.repeat(runs[:, 0], runs[:, 1]).reshape(result["height"], result["width"])
        assert np.array_equal(mask, np.asarray(Image.open(file)).argmax(axis=-1))
        shares = {each["index"]: each["share"] for each in result["classes"]}
        assert {each["label"] for each in result["classes"]} <= {"wall", "floor", "door"}
        assert shares == pytest.approx({k: (mask == k).mean() for k in np.unique(mask)})


def test_labels_are_those_above_the_threshold_best_first(projects):
    _, session = projects("tags")
    found = session.predict([2.0, -1.0, 3.0, 0.1])
    assert [each["label"] for each in found["result"]] == ["wind", "sun", "snow"]
    assert found["confidence"] == pytest.approx(1 / (1 + np.exp(-3)))
    none = session.predict([-1.0, -1.0, -1.0, -1.0])
    assert (none["result"], none["confidence"]) == ([], None)


def test_sounds_are_classified_by_their_spectrogram(projects):
    folder, session = projects("tones")
    files = sorted((folder / "eval").rglob("*.wav"))
    assert [session.predict(f)["result"] for f in files] == [f.parent.name for f in files]


def test_a_stream_in_blocks_gives_the_decisions_of_the_whole(projects):
    folder, session = projects("speech")
    file = folder / "eval" / "0.wav"
    whole = session.predict(file)
    assert [each["from_s"] for each in whole["result"]][1:] == [
        each["to_s"] for each in whole["result"]
    ][:-1]
    assert whole["result"][-1]["to_s"] == pytest.approx(30 * STEP / RATE)

    wave = np.frombuffer(file.read_bytes()[44:], "<i2") / 32768
    stream = session.stream()
    parts = [stream.predict(wave[start : start + 370]) for start in range(0, len(wave), 370)]
    times = np.arange(30) * STEP / RATE + 1e-6
    for found in ([whole], parts):
        spans = [each for answer in found for each in answer["result"]]
        labels = [next(s["label"] for s in spans if s["from_s"] <= t < s["to_s"]) for t in times]
        if found == [whole]:
            expected = labels
    assert labels == expected
    assert {"silence", "speech"} == set(labels)


@pytest.mark.parametrize(("count", "end_s"), [(50, 0.5), (100, 1.0), (200, 1.0)])
def test_times_of_decisions_are_those_of_the_sound_that_is_filled_or_cut(tmp_path, count, end_s):
    """The model takes 100 values of a second, and decides on each."""
    graph = "g (float[N,100] x) => (float[N,100] y) <float k = {1.0}> { y = Mul(x, k) }"
    fields = {"audio": {"rate": 100, "samples": 100}, "answer": {"kind": "decisions"}}
    session = Session(str(write_model_folder(tmp_path, graph, **fields)))
    found = session.predict(np.ones(count, np.float32))["result"]
    spans = [(each["from_s"], each["to_s"], each["label"]) for each in found]
    assert spans == [(0.0, end_s, "1"), (0.5, 1.0, "0")][: 1 + (end_s < 1)]


def test_texts_of_any_length_are_classified(projects):
    _, session = projects("reviews")
    assert session.predict("the movie was good")["result"] == "positive"
    assert session.predict({"text": "bad bad film"})["result"] == "negative"
    assert session.predict_bytes(b"gut good", "text/plain")["result"] == "positive"
    body = json.dumps({"text": "bad"}).encode()
    assert session.predict_bytes(body, "application/json")["result"] == "negative"


def test_a_language_model_names_the_next_word(projects):
    _, session = projects("sentences")
    answer = session.predict("the movie was")
    assert answer["result"] == "good"
    assert answer["confidence"] == pytest.approx(np.exp(3) / (np.exp(3) + 8))
    assert len(answer["classes"]) == 5


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("colors", "*.png"), ("finder", "*.png"), ("tones", "*.wav"), ("regions", "images/*.png")],
)
def test_a_file_becomes_the_input_that_the_build_has_made_of_it(projects, name, pattern):
    folder, session = projects(name)
    inputs = read_build_inputs(Request(folder=folder, device=PROFILE))
    predictor = session._get_predictor()
    batches = iter_batches(inputs.evaluation.samples, predictor.runner.model.inputs, 1)
    built = {value.tobytes() for batch in batches for value in batch.inputs.values()}
    made = set()
    for file in (folder / "eval").rglob(pattern):
        for rows in predictor.reader.read(file).rows:
            made |= {value.tobytes() for value in predictor.runner.stack(rows).values()}
    assert len(made) > 5
    assert made == built


def test_a_pushed_release_holds_what_a_session_needs(projects, tmp_path, monkeypatch):
    folder, session = projects("reviews")
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path))
    pushed = edgekit("push", folder / "build" / PROFILE, "local")
    assert pushed.code == 0, pushed.err
    with Session(str(tmp_path / "current")) as served:
        for text in ("the movie was good", "a bad film"):
            assert served.predict(text)["classes"] == session.predict(text)["classes"]
        assert served.check().healthy


def test_rows_are_read_by_the_names_of_their_fields(projects):
    _, session = projects("risks")
    found = session.predict({"height": 1.7, "age": 70, "weight": "80"})
    assert found["result"] == "ill"
    assert found["confidence"] == pytest.approx(1 / (1 + np.exp(-1.5)))
    assert session.predict([30, 60, 1.8])["result"] == "healthy"
    assert [each["index"] for each in session.predict([30, 60, 1.8])["classes"]] == [0, 1]


def test_numbers_without_classes_are_given_by_output(projects):
    _, session = projects("prices")
    assert session.predict({"x": [1, 2, 3]})["result"] == {"price": [pytest.approx(6)]}


def test_recognized_texts_are_those_of_the_metric(projects):
    folder, session = projects("lines")
    arrays = np.load(folder / "eval.npz")
    for x, text in zip(arrays["x"][:10], arrays["y"][:10], strict=True):
        answer = session.predict(x)
        assert answer["result"].startswith(str(text)[:-1])
        assert 0 < answer["confidence"] < 1


def test_golden_samples_are_healthy_until_the_model_is_another(projects, tmp_path):
    folder, session = projects("colors")
    assert session.check().healthy
    source = folder / "build" / "tablet-x86"
    for name in ("manifest.json", "golden.npz"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    other = (
        (source / "model.onnx")
        .read_bytes()
        .replace(np.float32(6).tobytes() * 1, np.float32(-6).tobytes())
    )
    (tmp_path / "model.onnx").write_bytes(other)
    with Session(str(tmp_path)) as changed:
        assert not changed.check().healthy


def test_answers_are_those_of_onnxruntime_on_the_prepared_image(projects):
    folder, session = projects("colors")
    file = next((folder / "eval").rglob("*.png"))
    image = Image.open(file).convert("RGB")
    ratio = 20 / min(image.size)
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), 3)
    left, top = (image.width - 16) // 2, (image.height - 16) // 2
    pixels = np.asarray(image.crop((left, top, left + 16, top + 16)), np.float32)
    x = ((pixels / 255 - 0.4) / 0.2).transpose(2, 0, 1)[None].astype(np.float32)
    model = onnxruntime.InferenceSession(folder / "build" / "tablet-x86" / "model.onnx")
    (logits,) = model.run(None, {"x": x})
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum()
    found = {each["index"]: each["confidence"] for each in session.predict(file)["classes"]}
    assert found == pytest.approx(dict(enumerate(shares.tolist())), rel=1e-3, abs=1e-9)


def test_threads_share_a_session(projects):
    folder, session = projects("colors")
    files = sorted((folder / "eval").rglob("*.png"))
    results = {}

    def work(start):
        for file in files[start::3]:
            results[file] = session.predict(file)["result"]

    threads = [threading.Thread(target=work, args=(start,)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {file: file.parent.name for file in files}


def test_a_closed_session_answers_no_more(projects):
    folder, _ = projects("prices")
    session = Session(str(folder / "build" / "tablet-x86"))
    session.close()
    with pytest.raises(AgentError, match="closed"):
        session.predict([1, 2, 3])


def test_a_longer_recording_is_cut_and_a_shorter_one_filled(projects, tmp_path):
    _, session = projects("tones")
    tone = 0.4 * np.sin(2 * np.pi * 500 * np.arange(4000) / RATE)
    save_wave(tmp_path / "long.wav", tone)
    save_wave(tmp_path / "short.wav", tone[:900])
    assert session.predict(tmp_path / "long.wav")["result"] == "low"
    assert session.predict(tmp_path / "short.wav")["result"] == "low"


def test_importing_the_agent_does_not_import_numpy():
    code = (
        "import sys, edgekit_agent; edgekit_agent.Session; "
        "assert 'numpy' not in sys.modules, 'numpy'; print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT / "targets")},
    )
    assert done.stdout == "fine\n", done.stderr


def test_a_gray_or_transparent_image_is_read_like_the_build_reads_it(projects):
    _, session = projects("colors")
    values = np.zeros((30, 30, 4), np.uint8)
    values[..., 0], values[..., 3] = 200, 10
    file = io.BytesIO()
    Image.fromarray(values, "RGBA").save(file, "PNG")
    assert session.predict(file.getvalue())["result"] == "red"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright_as_its_exif_data_say(projects, orientation):
    _, session = projects("finder")
    upright = np.full((64, 48, 3), 90, np.uint8)
    upright[:20, :12] = 250
    image = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # the inverse turns
    file = io.BytesIO()
    (image if stored is None else image.transpose(stored)).save(file, "PNG", exif=exif)

    answer = session.predict(file.getvalue())

    assert answer["result"] == session.predict(upright)["result"]
