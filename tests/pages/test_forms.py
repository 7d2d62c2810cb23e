"""Forms and texts in a browser."""

import json

import pytest

from tests.pages import answers

pytestmark = pytest.mark.browser
FIELDS = [
    {"name": "age", "label": "Age", "type": "number", "min": 0, "max": 120, "unit": "years"},
    {"name": "temperature", "label": "Body temperature", "type": "number", "unit": "°C"},
    {"name": "sex", "label": "Sex", "type": "choice", "choices": ["female", "male"]},
    {"name": "ward", "label": "Ward", "type": "choice", "choices": [1, 2], "value": 2},
    {"name": "crp", "type": "number", "optional": True, "min": 0},
]


@pytest.fixture
def form(open_page):
    return open_page(result=answers.PNEUMONIA, config={"input": "form", "fields": FIELDS})


def choose(page, number, words):
    options = page.find_all(f"#field-{number} option")
    next(option for option in options if option.text == words).click()


def test_a_row_holds_numbers_and_choices(form):
    form.find("#field-0").send_keys("71")
    form.find("#field-1").send_keys("38,4")
    choose(form, 2, "male")
    form.button("Get the result").click()
    form.wait_for("#summary", "PNEUMONIA")
    ((body, kind),) = form.app.bodies
    assert kind == "application/json"
    assert json.loads(body) == {"age": 71, "temperature": 38.4, "sex": "male", "ward": 2}


def test_each_wrong_field_says_what_to_enter(form):
    form.find("#field-0").send_keys("130")
    form.find("#field-1").send_keys("warm")
    form.find("#field-4").send_keys("-1")
    form.button("Get the result").click()
    wrong = [line.text for line in form.find_all(".entry ~ .wrong") if line.is_displayed()]
    assert wrong == [
        "Enter 120 or less.",
        "Enter a number, such as 36.5.",
        "Choose one.",
        "Enter 0 or more.",
    ]
    assert form.script("return document.activeElement.id") == "field-0"
    assert form.find("#field-0").get_attribute("aria-invalid") == "true"
    assert form.app.bodies == []


def test_a_field_is_no_longer_wrong_once_it_is_corrected(form):
    form.button("Get the result").click()
    assert form.text("#field-0-wrong") == "Enter a value."
    form.find("#field-0").send_keys("60\t")
    assert form.text("#field-0-wrong") == ""


def test_fields_have_labels_ranges_and_units(form):
    names = form.script("return [...document.querySelectorAll('label')].map(l => l.control.id)")
    assert names == [f"field-{n}" for n in range(5)]
    assert form.text("#field-0-note") == "0 to 120"
    assert form.text("#field-4-note") == "0 or more; may stay empty"
    assert "years" in form.text("#input")
    assert "crp" in form.text("#input")  # the name of a field without a label


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("−2,5", -2.5), (" .5 ", 0.5), ("1.", 1), ("0x10", None), ("1,2,3", None)],
)
def test_numbers_are_read_with_point_or_comma(form, text, value):
    read = "const { readNumber } = await import('./input-form.js'); return readNumber(given[0]);"
    assert form.module(read, text) == value  # JSON has no NaN


def test_an_empty_number_is_none(form):
    read = "const { readNumber } = await import('./input-form.js'); return readNumber('') === null;"
    assert form.module(read)


def test_a_form_without_fields_says_whom_to_ask(open_page):
    page = open_page(config={"input": "form"})
    assert "Ask the person who made it." in page.text("#input")


def test_a_text_is_sent_as_it_is(open_page):
    page = open_page(result=answers.PNEUMONIA, config={"input": "text"})
    page.find("textarea").send_keys("Atemnot, seit gestern")
    page.button("Get the result").click()
    page.wait_for("#summary", "PNEUMONIA")
    body, kind = page.app.bodies[0]
    assert (body.decode(), kind) == ("Atemnot, seit gestern", "text/plain; charset=utf-8")


def test_an_empty_or_long_text_is_refused(open_page):
    page = open_page(result=answers.PNEUMONIA, config={"input": "text", "max_chars": 5})
    page.find("textarea").send_keys("  ")
    page.button("Get the result").click()
    assert page.text("#text-wrong") == "Enter a text first."
    page.find("textarea").send_keys("abcdef")
    page.button("Get the result").click()
    assert page.text("#text-wrong") == "The text is too long: 8 characters. Shorten it to 5."
    assert page.app.bodies == []
