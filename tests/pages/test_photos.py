"""Photos from files, the camera, drops and the clipboard, in a browser."""

import json

import pytest

from tests.pages import answers
from tests.pages.conftest import read_size
from tests.pages.test_results import PIXEL

pytestmark = pytest.mark.browser
DROP = """
const [target, bytes, name, type] = arguments;
const data = new DataTransfer();
data.items.add(new File([new Uint8Array(bytes)], name, { type }));
const send = (event) => document.querySelector(target).dispatchEvent(event);
send(new DragEvent("dragover", { dataTransfer: data, bubbles: true, cancelable: true }));
send(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
"""
PASTE = """
const data = new DataTransfer();
data.items.add(new File([new Uint8Array(arguments[0])], "pasted.png", { type: "image/png" }));
document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
"""


def test_the_photo_is_sent_byte_for_byte(open_page, photo):
    page = open_page(result=answers.PNEUMONIA)
    page.choose_file(photo())
    page.wait_for("#summary", "PNEUMONIA")
    assert page.app.bodies == [(photo().read_bytes(), "image/jpeg")]


def test_a_photo_that_was_taken_sideways_is_sent_upright(open_page, photo):
    page = open_page(result=answers.PNEUMONIA)
    page.choose_file(photo(320, 240, name="sideways.jpg", orientation=6))
    page.wait_for("#summary", "PNEUMONIA")
    ((body, kind),) = page.app.bodies
    assert kind == "image/jpeg"
    assert read_size(body) == (240, 320)
    canvas = page.find(".picture canvas")
    assert int(canvas.get_attribute("width")) < int(canvas.get_attribute("height"))


def test_a_large_photo_is_shown_at_the_size_of_the_screen(open_page, photo):
    box = ("person", 0, 0.9, [1000, 750, 3000, 2250])
    page = open_page(result=answers.make_boxes(box), width=360)
    page.choose_file(photo(4000, 3000, name="large.jpg"))
    assert page.wait_for("#summary", "found") == "1 found: person"
    canvas = page.find(".picture canvas")
    assert [canvas.get_attribute("width"), canvas.get_attribute("height")] == ["1600", "1200"]
    assert canvas.rect["width"] < 360
    assert read_size(page.app.bodies[0][0]) == (4000, 3000)


def test_a_photo_of_too_many_pixels_is_sent_smaller(open_page, photo):
    box = ("person", 0, 0.9, [1000, 750, 3000, 2250])
    page = open_page(result=answers.make_boxes(box))
    page.choose_file(photo(9300, 7000, name="huge.jpg"))
    page.wait_for("#summary", "found")
    width, height = read_size(page.app.bodies[0][0])
    assert (width, height) == pytest.approx((4610, 3470), rel=0.01)
    # The box is drawn in pixels of what was sent.
    row = page.script(PIXEL, 0.5, 750 / height)
    assert row == [255, 214, 10]


def test_a_photo_larger_than_the_app_takes_is_sent_as_jpeg_or_refused(open_page, photo):
    page = open_page(result=answers.PNEUMONIA, config={"max_bytes": 150_000})
    big = photo(1200, 900, name="big.bmp")
    page.choose_file(big)
    page.wait_for("#summary", "PNEUMONIA")
    assert len(page.app.bodies[0][0]) < 150_000 < big.stat().st_size
    page = open_page(result=answers.PNEUMONIA, config={"max_bytes": 1000})
    page.choose_file(big)
    page.wait_for("#problem", "This photo is too large (1 MB).")
    assert page.app.bodies == []


def test_a_photo_can_be_dropped_or_pasted(open_page, photo):
    page = open_page(result=answers.PNEUMONIA)
    data = photo(name="small.png").read_bytes()
    page.script(DROP, ".drop", list(data), "small.png", "image/png")
    page.wait_for("#summary", "PNEUMONIA")
    page.script(PASTE, list(data))
    page.wait(lambda: len(page.app.bodies) == 2)
    assert page.app.bodies == [(data, "image/png")] * 2


def test_a_file_dropped_beside_the_box_does_not_replace_the_page(open_page):
    page = open_page()
    page.script(DROP, "footer", [1, 2, 3], "other.txt", "text/plain")
    assert page.text("h1") == "Chest X-ray reader"
    assert page.app.bodies == []


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"no photo", "This file is not a photo"), (b"", "This file is empty.")],
)
def test_a_file_that_is_no_photo_is_refused(open_page, tmp_path, data, words):
    page = open_page(result=answers.PNEUMONIA)
    (tmp_path / "notes.jpg").write_bytes(data)
    page.choose_file(tmp_path / "notes.jpg")
    page.wait_for("#problem", words)
    assert page.app.bodies == []


def test_the_camera_takes_a_photo(open_page):
    page = open_page(result=answers.PNEUMONIA)
    page.button("Use the camera").click()
    page.wait(lambda: page.script("return document.querySelector('video')?.videoWidth > 0"))
    page.button("Take the photo").click()
    page.wait_for("#summary", "PNEUMONIA")
    ((body, kind),) = page.app.bodies
    assert kind == "image/jpeg"
    assert min(read_size(body)) >= 240
    assert page.find_all("video") == []
    assert page.button("Use the camera").is_displayed()


def test_closing_the_camera_turns_it_off(open_page):
    page = open_page()
    page.button("Use the camera").click()
    page.wait(lambda: page.script("return document.querySelector('video')?.videoWidth > 0"))
    page.script("window.track = document.querySelector('video').srcObject.getTracks()[0]")
    page.button("Close the camera").click()
    assert page.script("return window.track.readyState") == "ended"
    assert page.script("return document.activeElement.textContent") == "Use the camera"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NotAllowedError", "The camera is blocked. Allow it for this page"),
        ("NotFoundError", "No camera was found."),
        ("NotReadableError", "another app may be using it"),
    ],
)
def test_a_camera_that_does_not_start_says_what_to_do(open_page, name, words):
    page = open_page()
    refuse = f"() => Promise.reject(new DOMException('', {json.dumps(name)}))"
    page.script(f"navigator.mediaDevices.getUserMedia = {refuse}")
    page.button("Use the camera").click()
    page.wait_for("#problem", words)
    assert page.button("Use the camera").is_displayed()


def test_an_app_without_permission_has_no_camera(open_page):
    page = open_page(config={"camera": False})
    assert "camera" not in page.text("#input")


def test_an_app_that_watches_a_folder_takes_one_file(open_page, photo, tmp_path):
    page = open_page(result=answers.DOGS, config={"input": "folder"})
    page.choose_file(photo())
    page.wait_for("#summary", "3 found")
    assert page.find(".picture canvas").is_displayed()
    (tmp_path / "row.csv").write_text("1,2\n")
    page.choose_file(tmp_path / "row.csv")
    page.wait(lambda: len(page.app.bodies) == 2)
    assert page.app.bodies[1] == (b"1,2\n", "text/csv")
