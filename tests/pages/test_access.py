"""The pages by keyboard and screen reader, on narrow and wide screens."""

import pytest

from tests.pages import answers
from tests.pages.browser import set_width
from tests.pages.test_forms import FIELDS

pytestmark = pytest.mark.browser
SHIFT, TAB, ENTER = "\ue008", "\ue004", "\ue007"
INPUTS = {
    "image": {"input": "image"},
    "audio": {"input": "audio"},
    "form": {"input": "form", "fields": FIELDS},
    "text": {"input": "text"},
    "folder": {"input": "folder"},
}
SMALL = """
return [...document.querySelectorAll("button, select, textarea, input, label.button, summary, a")]
  .filter((element) => element.offsetParent && !element.matches(".visually-hidden, .skip"))
  .map((element) => (element.type === "checkbox" ? element.closest("label") : element))
  .map((element) => [element.outerHTML.slice(0, 60), element.getBoundingClientRect()])
  .filter(([, box]) => box.width < 44 || box.height < 44)
  .map(([html]) => html);
"""
UNNAMED = """
const kinds = "button, select, textarea, input, canvas, video, progress, [role=meter]";
return [...document.querySelectorAll(kinds)]
  .filter((element) => element.offsetParent || element.matches(".visually-hidden"))
  .filter((element) => !(element.labels?.length || element.getAttribute("aria-label")
    || element.getAttribute("aria-labelledby") || element.textContent.trim()))
  .map((element) => element.outerHTML.slice(0, 80));
"""


WIDTHS = (320, 360, 768, 1280)


def check_layout(page, *, dark=False):
    for width in WIDTHS:
        set_width(page.driver, width, dark=dark)
        assert not page.is_too_wide(), width
        assert page.script(SMALL) == [], width
    assert page.script(UNNAMED) == []


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_fit_the_screen_with_targets_for_fingers(open_page, kind):
    check_layout(open_page(config=INPUTS[kind]))


@pytest.mark.parametrize("name", ["PNEUMONIA", "DOGS", "MASK", "TEXT", "DECISIONS", "EMBEDDING"])
def test_results_fit_the_screen_with_targets_for_fingers(open_page, photo, name):
    page = open_page(result=getattr(answers, name))
    page.choose_file(photo())
    page.wait_for("#latency", "32 ms")
    check_layout(page, dark=True)


def test_a_text_can_be_sent_by_the_keyboard_alone(open_page):
    page = open_page(result=answers.PNEUMONIA, config=INPUTS["text"])
    press(page, TAB)
    assert page.script("return document.activeElement.id") == "skip"
    press(page, ENTER, TAB)
    assert page.script("return document.activeElement.id") == "text"
    press(page, "cough", TAB, ENTER)
    page.wait_for("#summary", "PNEUMONIA")


def press(page, *keys):
    for each in keys:
        page.driver.switch_to.active_element.send_keys(each)


def test_the_choice_of_a_file_is_reached_by_the_keyboard_and_seen(open_page):
    page = open_page()
    page.button("Use the camera").send_keys("")
    assert page.script("return document.activeElement.textContent") == "Use the camera"
    actions = pytest.importorskip("selenium.webdriver").ActionChains(page.driver)
    actions.key_down(SHIFT).send_keys(TAB).key_up(SHIFT).perform()
    assert page.script("return document.activeElement.id") == "file"
    label = "getComputedStyle(document.querySelector('label.button'))"
    assert page.script(f"return [{label}.outlineStyle, {label}.outlineWidth]") == ["solid", "3px"]


def test_results_and_errors_are_read_aloud(open_page):
    page = open_page(config=INPUTS["text"])
    assert page.find("#summary").get_attribute("aria-live") == "polite"
    assert page.find("#problem").get_attribute("role") == "alert"
    assert page.find("#progress-text").get_attribute("role") == "status"


def test_headings_and_landmarks_describe_the_page(open_page):
    page = open_page()
    headings = page.script(
        "return [...document.querySelectorAll('h1, h2')].map(h => h.textContent)"
    )
    assert headings == ["Chest X-ray reader", "Photo", "Result"]
    for tag in ("header", "main", "footer"):
        assert len(page.find_all(tag)) == 1


def test_nothing_moves_where_reduced_motion_is_asked_for(open_page, photo):
    page = open_page(result=answers.PNEUMONIA)
    feature = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
    page.choose_file(photo())
    page.wait_for("#summary", "PNEUMONIA")
    moving = "getComputedStyle(document.querySelector('.bar div')).transitionDuration"
    assert page.script(f"return {moving}") == "0s"


@pytest.mark.parametrize("dark", [False, True])
def test_colors_follow_the_scheme_of_the_device(open_page, dark):
    page = open_page(dark=dark)
    color = page.script("return getComputedStyle(document.body).backgroundColor")
    assert color == ("rgb(17, 21, 26)" if dark else "rgb(244, 246, 248)")


def test_a_form_of_twice_the_letter_size_still_fits_a_phone(open_page):
    page = open_page(config=INPUTS["form"], width=360)
    page.script("document.documentElement.style.fontSize = '200%'")
    assert not page.is_too_wide()
