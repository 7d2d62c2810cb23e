"""Results of every kind, as the page shows them in a browser."""

import pytest

from tests.pages import answers

pytestmark = pytest.mark.browser


def test_a_class_is_shown_with_bars_of_confidence(open_page, photo):
    page = open_page(result=answers.PNEUMONIA)
    page.choose_file(photo())
    assert page.wait_for("#summary", "PNEUMONIA") == "PNEUMONIA, 93.4% confident"
    bars = [bar.text.split("\n") for bar in page.find_all(".bars li")]
    assert bars == [["PNEUMONIA", "93.4%"], ["NORMAL", "6.6%"]]
    widths = page.script(
        "return [...document.querySelectorAll('.bar div')].map(e => e.style.width)"
    )
    assert widths == ["93.4%", "6.6%"]
    assert page.text("#latency") == "Answered in 32 ms."
    assert page.read_console() == []


def test_the_photo_is_sent_byte_for_byte(open_page, photo):
    page = open_page(result=answers.PNEUMONIA)
    page.choose_file(photo())
    page.wait_for("#summary", "PNEUMONIA")
    assert page.app.bodies == [(photo().read_bytes(), "image/jpeg")]


def test_the_footer_says_what_the_app_is(open_page):
    page = open_page()
    page.wait_for("#fact_check", "This device computes as the original did.")
    footer = page.text("footer")
    for words in ("Not a medical device", "med-pneumonia int8, version 3", "1.2.0", "94.1 %"):
        assert words in footer
    assert page.text("h1") == page.driver.title == "Chest X-ray reader"
    assert page.script("return document.documentElement.lang") == "en"
    assert page.find("#warning").is_displayed() is False
