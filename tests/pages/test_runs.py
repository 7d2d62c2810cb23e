"""Slow, failed and repeated predictions, and the start of the page."""

import time

import pytest

from tests.pages import answers
from tests.pages.page_server import HEALTH
from tests.pages.test_sounds import write_wav

pytestmark = pytest.mark.browser


def write(page, text="short of breath"):
    page.find("textarea").clear()
    page.find("textarea").send_keys(text)


def open_text(open_page, **settings):
    config = {"input": "text", **settings.pop("config", {})}
    return open_page(**{"result": answers.PNEUMONIA, "config": config, **settings})


def test_a_slow_prediction_shows_progress_after_a_second(open_page):
    page = open_text(open_page, delay_s=3)
    write(page)
    begin = time.monotonic()
    page.button("Get the result").click()
    is_shown = page.find("#progress").is_displayed()
    assert not is_shown or time.monotonic() - begin > 1
    assert page.find("#result").get_attribute("aria-busy") == "true"
    page.wait_for("#progress", "Working on it: 1 s.")
    page.wait_for("#summary", "PNEUMONIA")
    assert not page.find("#progress").is_displayed()
    assert page.find("#result").get_attribute("aria-busy") == "false"


def test_a_slow_prediction_can_be_cancelled(open_page):
    page = open_text(open_page, delay_s=3)
    write(page)
    page.button("Get the result").click()
    page.wait(lambda: page.find("#cancel").is_displayed())
    page.button("Cancel").click()
    page.wait_for("#summary", "Cancelled. There is no result.")
    time.sleep(2)
    assert page.text("#summary") == "Cancelled. There is no result."
    assert page.text("#problem") == ""
    page.app.delay_s = 0
    page.button("Get the result").click()
    page.wait_for("#summary", "PNEUMONIA")


def test_pressing_twice_sends_once(open_page):
    page = open_text(open_page, delay_s=0.5)
    write(page)
    button = page.button("Get the result")
    button.click()
    button.click()
    page.find("textarea").send_keys("\ue009\ue007")  # Ctrl+Enter
    assert button.get_attribute("aria-disabled") == "true"
    page.wait_for("#summary", "PNEUMONIA")
    assert len(page.app.bodies) == 1
    assert button.get_attribute("aria-disabled") == "false"


def test_a_new_photo_replaces_one_that_is_being_worked_on(open_page, photo):
    first, second = photo(name="first.jpg"), photo(200, 300, name="second.jpg")

    def answer(body):
        late = body == first.read_bytes()
        time.sleep(1 if late else 0)
        return answers.make_class(("first" if late else "second", 0.9))

    page = open_page(result=answer)
    page.choose_file(first)
    page.wait(lambda: page.app.bodies)
    page.choose_file(second)
    page.wait_for("#summary", "second")
    time.sleep(1)
    assert page.text("#summary") == "second, 90% confident"


SLOW = """
const [name, owner] = arguments[0] === "audio"
  ? ["decodeAudioData", OfflineAudioContext.prototype] : ["createImageBitmap", window];
const decode = owner[name];
owner[name] = async function (...given) {
  owner[name] = decode; // the first file alone is slow
  await new Promise((resolve) => setTimeout(resolve, 1000));
  return decode.apply(this, given);
};
"""


@pytest.mark.parametrize("kind", ["image", "folder", "audio"])
def test_a_file_that_is_still_being_decoded_does_not_replace_a_later_one(
    open_page, photo, tmp_path, kind
):
    first, second = photo(name="first.jpg"), photo(200, 300, name="second.jpg")
    if kind == "audio":
        first = tmp_path / "first.mp3"
        first.write_bytes(b"not a sound")
        second = write_wav(tmp_path / "second.wav")
    page = open_page(result=answers.PNEUMONIA, config={"input": kind})
    page.script(SLOW, kind)
    page.choose_file(first)
    page.choose_file(second)
    page.wait_for("#summary", "PNEUMONIA")
    time.sleep(1.5)
    assert [body for body, _ in page.app.bodies] == [second.read_bytes()]
    assert (page.text("#summary"), page.text("#problem")) == ("PNEUMONIA, 93% confident", "")


def test_a_server_that_is_gone_can_be_tried_again(open_page):
    page = open_text(open_page)
    page.wait_for("#fact_check", "computes")
    page.app.stop()
    write(page)
    page.button("Get the result").click()
    page.wait_for("#problem", "The app does not answer. Check that it is running on this device")
    page.app.start()
    page.button("Try again").click()
    page.wait_for("#summary", "PNEUMONIA")
    assert page.text("#problem") == ""


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (
            400,
            {"error": {"kind": "bad_sample", "message": "the photo is dark", "hint": "use light"}},
            "The photo is dark.\nUse light.",
        ),
        (413, {}, "This input is too large."),
        (413, {"error": {"code": "too_large", "message": "at most 32 MB"}}, "At most 32 MB."),
        (503, {}, "The app is busy with another request."),
        (
            503,
            {"error": {"code": "busy", "message": "queue full"}},
            "Wait a moment, then try again.",
        ),
        (503, {"error": {"code": "killed", "message": "the model stopped"}}, "The model stopped."),
        (500, {"error": {"kind": "crash", "message": ""}}, "The app could not work on this input."),
        (
            500,
            {"error": {"kind": "crash", "message": "no disk"}},
            "choose another input.\nNo disk.",
        ),
        (422, {"error": "This text is in Latin."}, "This text is in Latin."),
        (404, [], "The app could not work on this input."),
    ],
)
def test_errors_of_the_app_say_what_to_do(open_page, status, answer, words):
    page = open_text(open_page, status=status, result=answer)
    write(page)
    page.button("Get the result").click()
    assert page.wait_for("#problem", words)
    assert page.button("Try again").is_displayed()
    assert page.text("#summary") == ""


def test_the_result_before_is_not_shown_beside_an_error(open_page):
    page = open_text(open_page)
    write(page)
    page.button("Get the result").click()
    page.wait_for("#summary", "PNEUMONIA")
    page.app.status = 500
    page.button("Get the result").click()
    page.wait_for("#problem", "could not work")
    assert page.text("#result-body") == page.text("#latency") == page.text("#summary") == ""


# ------------------------------------------------------------------------------ start


def test_the_page_waits_until_the_app_is_ready(open_page):
    page = open_text(open_page, ready=False, health={**HEALTH, "ready": False})
    page.wait_for("#progress", "The model is being loaded.")
    assert page.find_all("textarea") == []
    page.app.health = HEALTH
    page.wait(lambda: page.find_all("textarea"))
    assert not page.find("#progress").is_displayed()


def test_a_model_that_does_not_load_is_named(open_page):
    problem = "the model's process ended while it loaded the models"
    health = {**HEALTH, "ready": False, "problem": problem}
    page = open_text(open_page, ready=False, health=health)
    page.wait_for("#problem", "install it again.\nThe model's process ended")
    page.app.health = HEALTH
    page.button("Try again").click()
    page.wait(lambda: page.find_all("textarea"))


def test_a_page_that_is_not_complete_says_to_reload_it(open_page):
    page = open_text(open_page, ready=False, config={"backend": "./gone.js"})
    page.wait(lambda: page.find("#not-loaded").is_displayed())
    assert "Reload it." in page.text("#not-loaded")


@pytest.mark.parametrize(
    ("state", "words", "warned"),
    [
        ("different", "This device does not compute as the original did.", True),
        ("unknown", "Not checked.", False),
        ("running", "Being checked.", False),
    ],
)
def test_the_state_of_the_self_check_is_shown(open_page, state, words, warned):
    page = open_text(open_page, health={**HEALTH, "check": {"state": state}})
    page.wait_for("#fact_check", words)
    assert page.find("#warning").is_displayed() is warned
    page.app.health = HEALTH
    if state == "running":
        page.wait_for("#fact_check", "This device computes as the original did.")


def test_a_check_that_starts_after_the_page_is_shown_too(open_page):
    page = open_text(open_page, health={**HEALTH, "check": {"state": "unknown"}})
    page.wait_for("#fact_check", "Not checked.")
    page.app.health = {**HEALTH, "check": {"state": "same"}}
    page.wait_for("#fact_check", "This device computes as the original did.")


def test_a_page_whose_script_does_not_start_says_so_later(open_page):
    page = open_text(open_page)
    assert not page.find("#not-loaded").is_displayed()
    page.script("document.getElementById('not-loaded').hidden = false")
    style = "getComputedStyle(document.getElementById('not-loaded'))"
    assert page.script(f"return {style}.visibility") == "hidden"
    page.script("document.getAnimations().forEach((animation) => animation.finish())")
    assert page.script(f"return {style}.visibility") == "visible"


def test_words_of_another_language_fall_back_to_english(open_page):
    page = open_text(open_page, config={"language": "ar", "title": "قارئ"})
    assert page.script("return document.documentElement.lang") == "en"
    assert page.button("Get the result").is_displayed()


def test_an_app_that_names_the_least_is_served_over_http(open_page):
    page = open_text(open_page, config={"backend": None, "title": None, "model": None})
    assert page.text("h1") == "chest"
    write(page)
    page.button("Get the result").click()
    page.wait_for("#summary", "PNEUMONIA")


def test_an_app_of_a_browser_links_its_manifest(open_page):
    page = open_text(open_page, config={"manifest": "manifest.webmanifest"})
    link = page.find("link[rel=manifest]")
    assert link.get_attribute("href") == f"{page.app.address}manifest.webmanifest"


def test_no_request_leaves_the_page_s_own_origin(open_page):
    page = open_text(open_page)
    names = page.script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert names
    assert all(name.startswith(page.app.address) for name in names)
    blocked = page.module(
        "try { await fetch('http://127.0.0.1:9/'); return 'sent' } catch { return 'blocked' }"
    )
    assert blocked == "blocked"
    assert any("Content Security Policy" in line for line in page.read_console())
