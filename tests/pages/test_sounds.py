"""Sounds from files and from the microphone, in a browser."""

import io
import math
import struct
import wave

import numpy as np
import pytest

from tests.pages import answers

pytestmark = pytest.mark.browser


def write_wav(path, seconds=0.5, rate=16000):
    samples = [int(9000 * math.sin(n / 9)) for n in range(int(rate * seconds))]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return path


def read_wav(data):
    with wave.open(io.BytesIO(data)) as file:
        shape = (file.getnchannels(), file.getsampwidth(), file.getframerate())
        return shape, np.frombuffer(file.readframes(file.getnframes()), "<i2")


def open_sound(open_page, **config):
    return open_page(result=answers.DECISIONS, config={"input": "audio", **config})


def test_a_wav_file_is_sent_byte_for_byte(open_page, tmp_path):
    page = open_sound(open_page)
    path = write_wav(tmp_path / "call.wav")
    page.choose_file(path)
    page.wait_for("#summary", "3 decisions, the last is silence")
    assert page.app.bodies == [(path.read_bytes(), "audio/wav")]
    assert "Chosen: call.wav" in page.text("#input")


def test_a_file_that_is_no_sound_is_refused(open_page, tmp_path):
    page = open_sound(open_page)
    (tmp_path / "call.mp3").write_bytes(b"not a sound")
    page.choose_file(tmp_path / "call.mp3")
    page.wait_for("#problem", "Choose a WAV file.")
    assert page.app.bodies == []


def test_a_recording_is_sent_as_wav_at_the_rate_of_the_model(open_page):
    page = open_sound(open_page, audio={"sample_rate": 8000})
    page.button("Record").click()
    page.wait_for("#input", "Recording: 1 s.")
    assert page.find(".level").is_displayed()
    page.button("Stop and get the result").click()
    page.wait_for("#summary", "3 decisions")
    ((body, kind),) = page.app.bodies
    shape, samples = read_wav(body)
    assert kind == "audio/wav"
    assert shape == (1, 2, 8000)
    assert 8000 <= len(samples) < 8000 * 8
    assert np.abs(samples).max() > 500  # the browser's test device beeps
    assert not page.find(".level").is_displayed()


def test_a_recording_ends_by_itself(open_page):
    page = open_sound(open_page, audio={"max_s": 1})
    page.button("Record").click()
    page.wait_for("#summary", "3 decisions")
    _, samples = read_wav(page.app.bodies[0][0])
    assert len(samples) == pytest.approx(16000, rel=0.1)


def test_listening_decides_on_one_window_after_another(open_page):
    page = open_sound(open_page, audio={"window_s": 0.25})
    heard = iter(["silence", "silence", "alarm"])
    page.app.result = lambda _: answers.make_class((next(heard, "alarm"), 0.9))
    page.button("Listen continuously").click()
    page.wait_for("#summary", "alarm")
    rows = [row.text.split("\n") for row in page.find_all("#result-body li")]
    assert rows[-1][0].startswith("0 to 0.")
    assert [rows[-1][1], rows[0][1]] == ["silence", "alarm"]
    page.button("Stop listening").click()
    page.wait_for("#summary", "decisions, the last is alarm")
    assert all(len(read_wav(body)[1]) == 4000 for body, _ in page.app.bodies)
    count = len(page.app.bodies)
    assert page.find(".level").is_displayed() is False
    page.choose_file(__file__)  # the input can be used again
    page.wait_for("#problem", "WAV")
    assert len(page.app.bodies) == count


def test_decisions_of_one_label_that_follow_each_other_are_joined(open_page):
    page = open_sound(open_page)
    code = (
        "const { listDecisions } = await import('./listening.js');"
        "const { createTimeline } = await import('./result-decisions.js');"
        "const { createWords } = await import('./words.js');"
        "const timeline = createTimeline(createWords({}, 'en'));"
        "for (const [at, answer] of given[0].entries())"
        "  timeline.add(listDecisions(answer, at * 0.25, 0.25));"
        "return timeline.decisions;"
    )
    heard = [answers.make_class((label, share)) for label, share in
             (("quiet", 0.6), ("quiet", 0.9), ("alarm", 0.7), ("quiet", 0.8))]  # fmt: skip
    heard.append(answers.make_answer("decisions", [{"from_s": 0.1, "to_s": 0.2, "label": "alarm"}]))
    found = [(d["from_s"], d["to_s"], d["label"]) for d in page.module(code, heard)]
    assert found[:3] == [(0, 0.5, "quiet"), (0.5, 0.75, "alarm"), (0.75, 1, "quiet")]
    assert found[3] == (pytest.approx(1.1), pytest.approx(1.2), "alarm")


def test_windows_are_left_out_when_the_device_is_slower_than_the_sound(open_page):
    page = open_sound(open_page, audio={"window_s": 0.1})
    page.app.delay_s = 0.6
    page.app.result = answers.make_class(("alarm", 0.9))
    page.button("Listen continuously").click()
    page.wait_for("#result-body", "This device is slower than the sound")
    page.button("Stop listening").click()


def test_listening_ends_with_the_words_of_a_failure(open_page):
    page = open_sound(open_page, audio={"window_s": 0.1})
    page.app.status = 400
    page.app.result = {"error": {"kind": "bad_sample", "message": "the sound is too short"}}
    page.button("Listen continuously").click()
    page.wait_for("#problem", "The sound is too short.")
    page.wait(lambda: page.button("Listen continuously").is_displayed())


def test_choosing_a_file_ends_listening(open_page, tmp_path):
    page = open_sound(open_page, audio={"window_s": 30})
    page.button("Listen continuously").click()
    page.wait_for("#input", "Listening.")
    page.choose_file(write_wav(tmp_path / "call.wav"))
    page.wait_for("#summary", "3 decisions")
    assert page.button("Listen continuously").is_displayed()
    assert len(page.app.bodies) == 1


def test_an_app_that_takes_whole_sounds_does_not_listen(open_page):
    page = open_sound(open_page, audio={"listen": False})
    assert page.button("Record").is_displayed()
    assert "Listen" not in page.text("#input")


def test_a_blocked_microphone_says_what_to_do(open_page):
    page = open_sound(open_page)
    refuse = "() => Promise.reject(new DOMException('', 'NotAllowedError'))"
    page.script(f"navigator.mediaDevices.getUserMedia = {refuse}")
    page.button("Record").click()
    page.wait_for("#problem", "The microphone is blocked.")
    assert page.button("Record").is_displayed()


def test_an_app_without_permission_has_no_microphone(open_page):
    page = open_sound(open_page, microphone=False)
    assert "Record" not in page.text("#input")


def test_written_wav_files_hold_the_samples(open_page):
    page = open_sound(open_page)
    values = [0, 0.5, -0.5, 1, -1, 2, -2, 1 / 32768]
    code = (
        "const { encodeWav } = await import('./sound.js');"
        "const blob = encodeWav(Float32Array.from(given[0]), 16000);"
        "return [...new Uint8Array(await blob.arrayBuffer())];"
    )
    shape, samples = read_wav(bytes(page.module(code, values)))
    assert shape == (1, 2, 16000)
    assert samples.tolist() == [0, 16384, -16384, 32767, -32768, 32767, -32768, 1]


def test_resampling_keeps_the_length_and_the_tone(open_page):
    page = open_sound(open_page)
    code = (
        "const { resample } = await import('./sound.js');"
        "const turn = 440 * 2 * Math.PI / 48000;"
        "const tone = Float32Array.from({ length: 48000 }, (_, n) => Math.sin(n * turn));"
        "return [...await resample(tone, 48000, 16000)];"
    )
    samples = np.array(page.module(code))
    expected = np.sin(np.arange(16000) * 440 * 2 * np.pi / 16000)
    assert len(samples) == 16000
    assert np.abs(samples - expected)[100:-100].max() < 0.02
