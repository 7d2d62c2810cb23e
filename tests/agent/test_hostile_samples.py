"""Damaged and hostile samples are refused in one line, without much memory or time."""

from __future__ import annotations

import io
import json
import resource
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from edgekit_agent import Session
from edgekit_agent.failures import AgentError
from tests.builders.apps.model_folders import write_model_folder
from tests.builders.apps.projects import save_tokenizer
from tests.web.step_vectors import make_wav

IMAGES = "g (float[N,H,W,3] x) => (float[N,H,W,3] y) <float k = {0.01}> { y = Mul(x, k) }"
SMALL = "g (float[N,8,8,3] x) => (float[N,8,8,3] y) <float k = {0.01}> { y = Mul(x, k) }"
SOUNDS = "g (float[N,T] x) => (float[N,T] y) <float k = {1.0}> { y = Mul(x, k) }"
ROWS = "g (float[N,3] x) => (float[N,3] y) <float k = {1.0}> { y = Mul(x, k) }"
WHOLE = "g (int64[N,2] n) => (int64[N,2] y) <int64 k = {1}> { y = Mul(n, k) }"
TWO = "g (float[N,2] a, float[N,2] b) => (float[N,2] y) { y = Add(a, b) }"
TEXTS = "g (int64[N,T] input_ids) => (float[N,T] y) { y = Cast<to = 1>(input_ids) }"
FIELDS = {"fields": [{"input": "x", "fields": ["age", "weight", "height"]}]}
TEXT = {"text": {"tokenizer": "tokenizer.json", "roles": {"input_ids": "input_ids"}}}


@pytest.fixture
def opened(tmp_path):
    def make(graph, **fields):
        save_tokenizer(tmp_path / "tokenizer.json")
        return Session(str(write_model_folder(tmp_path, graph, **fields)))

    return make


def refuse(session, *arguments):
    """Return the message of the refusal of a sample, or of a body with its media type."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AgentError) as caught:
        session.predict_bytes(*arguments) if len(arguments) > 1 else session.predict(*arguments)
    used_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    failure = caught.value.failure
    assert failure.kind == "bad_sample"
    assert "\n" not in failure.message
    assert len(failure.message) < 200
    assert used_mib < 200
    assert time.monotonic() - start < 30
    return failure.message


def make_png(width, height):
    """Return a PNG that claims a size, whose pixels compress to nothing."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(4, 65_000), (65_000, 4)])
def test_a_long_thin_image_does_not_fill_the_memory_when_its_short_side_is_resized(opened, size):
    session = opened(IMAGES, preprocess={"resize": 256, "crop": 224})
    message = refuse(session, make_png(*size))
    assert f"{size[0]}x{size[1]} is too long and thin to be resized" in message


def make_jpeg():
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(values).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("size", [(30_000, 30_000), (2_000_000, 2_000_000), (9000, 9000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_small_file_of_a_huge_image_is_refused_before_it_is_decoded(opened, size):
    message = refuse(opened(IMAGES), make_png(*size))
    assert "pixels" in message


@pytest.mark.parametrize(
    "data",
    [
        make_jpeg()[:-200],
        make_jpeg()[:30],
        b"\xff\xd8\xff",
        b"BM",
        b"GIF89a" + b"\xff" * 40,
        b"RIFF\x10\0\0\0WEBPVP8 ",
        make_png(64, 64)[:60],
        b"not an image",
        b"",
    ],
)
def test_a_damaged_image_is_refused(opened, data):
    assert "image" in refuse(opened(SMALL), data) or not data


def test_gray_pixels_of_16_bits_keep_their_upper_8_bits(opened):
    """Pillow would turn every value above 255 into white."""
    values = np.array([[0, 255, 256, 1000], [32768, 40000, 65280, 65535]], np.uint16)
    session = opened(IMAGES)
    for kind in ("PNG", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(values).save(file, kind)
        found = np.array(session.predict(file.getvalue())["result"]["y"])[..., 0]
        np.testing.assert_allclose(found.reshape(2, 4) * 100, values >> 8, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_32_bits_are_refused(opened, dtype):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 9, dtype)).save(file, "TIFF")
    assert "pixels of 32 bits are not read" in refuse(opened(SMALL), file.getvalue())


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_texts_that_unpack_to_gigabytes_are_refused(opened, kind):
    bomb = b"name\0\0" + zlib.compress(bytes(1 << 28), 9)
    chunk = struct.pack(">I", len(bomb)) + kind + bomb + struct.pack(">I", zlib.crc32(kind + bomb))
    whole = make_png(8, 8)
    assert "not an image that can be read" in refuse(opened(SMALL), whole[:33] + chunk + whole[33:])


def test_a_picture_that_is_a_program_is_not_run(opened, tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    refuse(opened(SMALL), file.getvalue())
    assert not (tmp_path / "ran").exists()


def test_a_jpeg_that_is_cut_anywhere_never_ends_the_session(opened):
    session, whole, kinds = opened(SMALL), make_jpeg(), set()
    for place in range(0, len(whole), len(whole) // 25):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        for data in (whole[:place], bytes(changed)):
            kinds.add(find_failure(session, data))
    assert kinds == {"", "bad_sample"}
    assert session.predict(whole)["kind"] == "values"


def find_failure(session, data):
    """Return the kind of the failure of a sample; empty if it is answered."""
    try:
        session.predict(data)
    except AgentError as error:
        return error.failure.kind
    return ""


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (make_wav(1, 1, 1, b"\0" * 8), "1 bits"),
        (make_wav(7, 8, 1, b"\0" * 8), "mu-law"),
        (make_wav(1, 16, 0, b"\0" * 8), "0 channels"),
        (make_wav(3, 32, 1, np.array([0, np.nan], "<f4").tobytes()), "not finite"),
        (make_wav(3, 64, 1, np.array([0, np.inf], "<f8").tobytes()), "not finite"),
        (make_wav(3, 64, 1, np.array([0, 1e300], "<f8").tobytes()), "value 1 is not finite"),
        (make_wav(1, 16, 1, b"\0" * 8, rate=44100), "44100"),
        (make_wav(1, 16, 1, b""), "empty"),
        (make_wav(1, 16, 1, b"\0" * 8)[:40] + b"\xff\xff\xff\x7f" + b"\0" * 8, "truncated"),
        (make_wav(1, 16, 1, b"\0" * 8)[:20], "damaged"),
        (b"RIFF\xff\xff\xff\x7fWAVE", "damaged"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 5000, "damaged"),
        (b"OggS" + b"\0" * 40, "not a .wav"),
    ],
)
def test_a_wrong_sound_is_refused(opened, data, word):
    assert word in refuse(opened(SOUNDS, audio={"rate": 8000}), data)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"age": 1, "weight": 2}, "height is missing"),
        ({"age": 1, "weight": 2, "height": 3, "x" * 500: 4}, "there is no field"),
        ({"age": 1, "weight": 2, "height": float("nan")}, "height is not a number"),
        ({"age": 1, "weight": 2, "height": 1e39}, "is not a value of float32"),
        ({"age": 1, "weight": 2, "height": None}, "height is empty"),
        ({"age": 1, "weight": 2, "height": ""}, "height is empty"),
        ({"age": 1, "weight": 2, "height": "inf"}, "height is not a number"),
        ({"age": 1, "weight": 2, "height": [3]}, "height is not a number"),
        ({"age": 1, "weight": 2, "height": {"a": 1}}, "height is not a number"),
        ({"age": True, "weight": 2, "height": 3}, "age is true, not a number"),
        ({"age": np.False_, "weight": 2, "height": 3}, "age is false, not a number"),
        ({"age": "1_0", "weight": 2, "height": 3}, "age is not a number"),
        ({"age": "\u0665", "weight": 2, "height": 3}, "age is not a number"),
        ({"x": [True, False, True]}, "x is true, not a number"),
        ([1, True, 3], "the row is true, not a number"),
        ([[1, True, 3]], "the row is true, not a number"),
        ({1: 2}, "there is no field"),
        ({}, "age is missing"),
        ([1, 2], "2 numbers"),
        ([1, 2, float("nan")], "not finite"),
        ([1, 2, "a"], "not an array of numbers"),
        ([[1, 2], [3]], "not an array of numbers"),
        ([], "not an array of numbers"),
        (None, "NoneType"),
        (3.5, "float"),
        ("text", "does not take texts"),
        (np.array(["a"]), "no numbers"),
        (np.zeros((1000, 3)), "shape"),
    ],
)
def test_a_wrong_row_is_refused(opened, row, word):
    assert word in refuse(opened(ROWS, **FIELDS), row)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"age": 1e999, "weight": 2, "height": 3}',
        b'{"age": NaN, "weight": 2, "height": 3}',
        b'{"age": 1, "age": 2, "weight": 2, "height": 3}',
        b"[" * 100_000,
        b'"text"',
        b"null",
        b"true",
        b"\xff\xfe",
        b" " * (17 << 20),
        b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        b"\x93NUMPY\x01\x00\x46\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,), }  \n",
    ],
)
@pytest.mark.parametrize("media_type", ["application/json", "application/octet-stream"])
def test_a_wrong_body_is_refused(opened, body, media_type):
    refuse(opened(ROWS, **FIELDS), body, media_type)


def test_numbers_may_be_written_as_text(opened):
    session = opened(ROWS, **FIELDS)
    row = {"age": " 50 ", "weight": "+7e1", "height": ".5"}
    assert session.predict(row)["result"] == {"y": [50, 70, 0.5]}


def test_inputs_of_truth_values_take_true_and_false(opened):
    session = opened("g (bool[N,2] b) => (bool[N,2] y) { y = Not(b) }")
    for sample in ({"b": [True, False]}, [[True, False]], {"b": [1, 0]}):
        assert session.predict(sample)["result"] == {"y": [False, True]}


def test_values_that_an_integer_input_would_change_are_refused(opened):
    session = opened(WHOLE)
    assert session.predict([3, 4])["result"] == {"y": [3, 4]}
    assert "1.5" in refuse(session, [1.5, 2])
    assert "1e+30" in refuse(session, [1e30, 2])
    assert "n:" in refuse(session, {"n": [1.5, 2]})


def test_a_sample_of_two_inputs_needs_both(opened):
    session = opened(TWO)
    assert session.predict({"a": [1, 2], "b": [3, 4]})["result"] == {"y": [4, 6]}
    assert "b is missing" in refuse(session, {"a": [1, 2]})
    assert "no input 'c'" in refuse(session, {"a": [1, 2], "b": [1, 2], "c": [1, 2]})
    assert "2 inputs" in refuse(session, [1, 2])
    assert "finite" in refuse(session, {"a": np.array([1, np.nan]), "b": [1, 2]})


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"\xff\xfe\x00", "UTF-8"),
        (b"", "empty"),
        (b"word " * 300_000, "characters"),
        (json.dumps({"text": "\ud800"}).encode(), "surrogate"),
        (json.dumps({"text": "a", "other": 1}).encode(), "text_pair"),
        (json.dumps({"text": 3}).encode(), "no input"),
    ],
)
def test_a_wrong_text_is_refused(opened, body, word):
    kind = "application/json" if body.startswith(b"{") else "text/plain"
    assert word in refuse(opened(TEXTS, **TEXT), body, kind)


def test_a_sample_of_another_kind_is_named(opened, tmp_path):
    texts, images = opened(TEXTS, **TEXT), Session(str(write_model_folder(tmp_path / "i", SMALL)))
    assert refuse(texts, make_jpeg()) == "this model does not take images"
    assert refuse(images, "a text") == "this model does not take texts"
    assert refuse(images, make_wav(1, 16, 1, b"\0" * 8)) == "this model does not take sounds"
    assert "no such" in refuse(images, tmp_path / "absent.png").lower()
    assert "regular" in refuse(images, tmp_path / "i")


def test_outputs_that_are_not_finite_are_a_failure_of_the_model(opened):
    session = opened("g (float[N,2] x) => (float[N,2] y) { y = Log(x) }")
    with pytest.raises(AgentError, match="not finite") as caught:
        session.predict([-1, 1])
    assert caught.value.failure.kind == "model_failed"


def test_a_folder_without_its_files_is_refused(tmp_path):
    folder = write_model_folder(tmp_path, TEXTS, **TEXT)
    with pytest.raises(AgentError, match=r"tokenizer\.json"):
        Session(str(folder))
    save_tokenizer(folder / "tokenizer.json")
    (folder / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(AgentError, match="cannot load"):
        Session(str(folder))
    (folder / "model.onnx").unlink()
    with pytest.raises(AgentError, match="no such file"):
        Session(str(folder))
    (folder / "tokenizer.json").write_bytes(b"{")
    with pytest.raises(AgentError, match=r"tokenizer\.json|no such file"):
        Session(str(folder))


def test_a_model_of_other_arrays_with_four_axes_takes_no_images(opened):
    session = opened(SMALL, takes_images=False)
    assert session.settings.input_kind == "row"
    assert refuse(session, make_jpeg()) == "this model does not take images"
    values = np.ones((8, 8, 3), np.float32)
    assert session.predict(values)["result"]["y"][0][0] == pytest.approx([0.01] * 3)


def test_an_image_and_numbers_feed_two_inputs(opened):
    session = opened(
        "g (float[N,8,8,3] x, float[N,1] age) => (float[N,1] y) "
        "{ p = ReduceMax<axes = [1, 2, 3], keepdims = 0>(x) u = Unsqueeze<axes = [1]>(p) "
        "y = Add(u, age) }",
        opset=12,
    )
    low, high = (session.predict({"x": make_jpeg(), "age": [n]})["result"]["y"][0] for n in (3, 5))
    assert high == low + 2
    assert low > 100  # the brightest pixel
    assert "image" in refuse(session, {"x": make_jpeg()[:100], "age": [3]})


@pytest.mark.filterwarnings("ignore")
def test_samples_changed_at_random_are_answered_or_refused(opened, tmp_path):
    rng = np.random.default_rng(11)
    array = io.BytesIO()
    np.save(array, np.zeros(3, np.float32))
    seeds = [
        make_jpeg(),
        make_png(20, 20),
        make_wav(1, 16, 1, bytes(200)),
        make_wav(3, 32, 2, bytes(400)),
        array.getvalue(),
        b'{"age": 1, "weight": 2, "height": 3}',
        b"[1, 2, 3]",
        "the movie was good ä".encode(),
    ]
    for number, (graph, fields) in enumerate(
        [(SMALL, {}), (SOUNDS, {"audio": {"rate": 8000}}), (ROWS, FIELDS), (TEXTS, TEXT)]
    ):
        folder = write_model_folder(tmp_path / str(number), graph, **fields)
        save_tokenizer(folder / "tokenizer.json")
        with Session(str(folder)) as session:
            kinds = [
                find_failure_of_body(session, change(seeds[place % len(seeds)], rng))
                for place in range(400)
            ]
        assert set(kinds) == {"", "bad_sample"}


def change(data, rng):
    """Return data with some bytes changed, removed or added, more often in their first ones."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(0, 6))):
        most = len(changed) if rng.random() < 0.4 else min(len(changed), 120)
        place = int(rng.integers(0, max(1, most)))
        size = int(rng.integers(1, 6))
        piece = b"" if rng.random() < 0.3 else rng.bytes(size)
        changed[place : place + (0 if rng.random() < 0.3 else size)] = piece
    return bytes(changed)


def find_failure_of_body(session, data):
    try:
        session.predict_bytes(data, "application/octet-stream")
    except AgentError as error:
        message = error.failure.message
        return error.failure.kind if "\n" not in message and len(message) < 250 else message
    return ""
