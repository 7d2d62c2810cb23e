"""Results of every kind, as the page shows them in a browser."""

import pytest

from tests.pages import answers

pytestmark = pytest.mark.browser
PIXEL = """
const [x, y] = arguments, canvas = document.querySelector(".picture canvas");
const at = (share, size) => Math.min(size - 1, Math.round(share * size));
const context = canvas.getContext("2d");
return [...context.getImageData(at(x, canvas.width), at(y, canvas.height), 1, 1).data].slice(0, 3);
"""
YELLOW, ORANGE = [255, 214, 10], [255, 159, 28]  # of class 0 and class 16


def show(page, photo, words="found"):
    page.choose_file(photo())
    return page.wait_for("#summary", words)


def test_a_class_is_shown_with_bars_of_confidence(open_page, photo):
    page = open_page(result=answers.PNEUMONIA)
    assert show(page, photo, "PNEUMONIA") == "PNEUMONIA, 93% confident"
    bars = [bar.text.split("\n") for bar in page.find_all(".bars li")]
    assert bars == [["PNEUMONIA", "93%"], ["NORMAL", "7%"]]
    widths = page.script(
        "return [...document.querySelectorAll('.bar div')].map(e => e.style.width)"
    )
    assert widths == ["93.4%", "6.6%"]
    assert page.text("#latency") == "Answered in 32 ms."
    assert page.read_console() == []


def test_the_note_of_an_app_is_shown_above_the_classes(open_page, photo):
    page = open_page(result={**answers.PNEUMONIA, "note": "The model is not sure."})
    show(page, photo, "PNEUMONIA")
    assert page.text("#result-body").startswith("The model is not sure.\nPNEUMONIA")


def test_certainty_is_not_rounded_up(open_page, photo):
    page = open_page(result=answers.make_class(("yes", 0.9999), ("no", 0.0001)))
    assert show(page, photo, "yes") == "yes, > 99.9% confident"
    assert [bar.text.split("\n")[1] for bar in page.find_all(".bars li")] == ["> 99.9%", "< 0.1%"]


def test_fifty_classes_with_long_names_fit_a_phone(open_page, photo):
    page = open_page(result=answers.FIFTY, width=360)
    show(page, photo, "variant 0")
    assert len(page.find_all(".bars li")) == 10
    page.button("Show 40 more").click()
    assert len(page.find_all(".bars li")) == 50
    assert not page.is_too_wide()


def test_names_from_right_to_left_and_emoji_are_shown_whole(open_page, photo):
    names = ["التهاب رئوي", "דלקת ריאות", "👩🏽‍⚕️ nurse", "<b>bold</b>"]
    page = open_page(result=answers.make_class(*[(n, 0.6 / 2**i) for i, n in enumerate(names)]))
    assert show(page, photo, names[0]).startswith(names[0])
    assert [name.text for name in page.find_all(".bars bdi")] == names
    assert page.find_all(".bars b") == []


def test_boxes_are_drawn_in_pixels_of_the_photo_and_listed(open_page, photo):
    page = open_page(result=answers.DOGS)
    assert show(page, photo) == "3 found: 2 × dog, 1 × person"
    rows = [row.text.split("\n") for row in page.find_all("#result-body li")]
    assert rows == [["1", "dog", "91%"], ["2", "person", "84%"], ["3", "dog", "42%"]]
    # The photo has 320 x 240 pixels; the first box is 40, 60, 200, 220.
    assert page.script(PIXEL, 40 / 320, 140 / 240) == ORANGE
    assert page.script(PIXEL, 200 / 320, 140 / 240) == ORANGE
    assert page.script(PIXEL, 220 / 320, 140 / 240) == YELLOW
    assert page.script(PIXEL, 120 / 320, 140 / 240) not in (ORANGE, YELLOW)


def test_one_box_can_be_shown_alone_by_the_keyboard(open_page, photo):
    page = open_page(result=answers.DOGS)
    show(page, photo)
    second = page.find_all("#result-body li button")[1]
    second.send_keys(" ")
    assert second.get_attribute("aria-pressed") == "true"
    assert page.script(PIXEL, 220 / 320, 140 / 240) == YELLOW
    assert page.script(PIXEL, 200 / 320, 140 / 240) != ORANGE
    second.send_keys(" ")
    assert page.script(PIXEL, 200 / 320, 140 / 240) == ORANGE


def test_three_hundred_boxes_are_listed_and_drawn(open_page, photo):
    page = open_page(result=answers.CROWD, width=360)
    assert show(page, photo).startswith("300 found: 34 × cell type 0, 34 × cell type 1")
    assert len(page.find_all("#result-body li")) == 20
    page.button("Show 280 more").click()
    assert len(page.find_all("#result-body li")) == 300
    assert page.script("return document.activeElement.textContent").startswith("21")
    assert not page.is_too_wide()
    # Box 290 of class 2: rows of 20.
    left, top = answers.CROWD["result"][290]["box"][:2]
    assert page.script(PIXEL, left / 320, (top + 6) / 240) == [255, 107, 157]


def test_a_mask_covers_the_photo_and_its_areas_can_be_hidden(open_page, photo):
    page = open_page(result=answers.MASK)
    assert show(page, photo, "area") == "Largest area: road, 50% of the photo"
    rows = [row.text.split("\n") for row in page.find_all("#result-body li")]
    assert rows == [["road", "50%"], ["sky", "38%"], ["tree", "13%"]]
    covered = page.script(PIXEL, 0.9, 0.25)
    page.find_all("#result-body input")[2].click()
    plain = page.script(PIXEL, 0.9, 0.25)
    tree = [183, 155, 255]
    assert covered == pytest.approx(
        [0.6 * t + 0.4 * p for t, p in zip(tree, plain, strict=True)], abs=2
    )


def test_a_mask_of_a_part_of_the_photo_covers_that_part(open_page, photo):
    region = {"region": [80, 0, 240, 240]}
    page = open_page(result={**answers.MASK, "result": {**answers.MASK["result"], **region}})
    page.choose_file(photo())
    page.wait(lambda: page.find(".picture canvas").is_displayed())
    page.wait_for("#summary", "area")
    green = [94, 224, 111]  # the road, over the lower half
    difference = [abs(g - p) for g, p in zip(green, page.script(PIXEL, 0.1, 0.7), strict=True)]
    covered = [abs(g - p) for g, p in zip(green, page.script(PIXEL, 0.5, 0.7), strict=True)]
    assert sum(covered) < sum(difference) / 1.5


def test_recognized_text_keeps_its_lines(open_page, photo):
    page = open_page(result=answers.TEXT)
    assert show(page, photo, "text") == "Recognized text, 87% confident"
    assert page.text(".recognized") == "Take 2 tablets\ndaily"


def test_a_single_value_is_the_summary_with_its_unit(open_page, photo):
    outputs = {"price": {"label": "House price", "unit": "× 100,000 $"}}
    page = open_page(result=answers.VALUES, config={"outputs": outputs})
    assert show(page, photo, "price") == "House price: 2.5317 × 100,000 $"


def test_many_values_are_a_table(open_page, photo):
    page = open_page(result=answers.EMBEDDING, width=360)
    assert show(page, photo, "values") == "256 values"
    cells = [cell.text for cell in page.find_all("tbody tr:nth-child(3) td")]
    assert page.text("h3") == "embedding"
    assert cells == ["3", "0.28571"]
    assert "The first 50 of 256 values" in page.text("#result-body")
    assert not page.is_too_wide()


def test_several_single_values_are_a_table_of_names(open_page, photo):
    values = answers.make_answer("values", {"systolic": [[121.4]], "diastolic": [80]})
    page = open_page(result=values, config={"outputs": {"systolic": {"unit": "mmHg"}}})
    show(page, photo, "2 values")
    rows = [row.text.split(" ", 1) for row in page.find_all("tbody tr")]
    assert rows == [["systolic", "121.4 mmHg"], ["diastolic", "80"]]


def test_decisions_are_a_strip_and_a_list(open_page, photo):
    page = open_page(result=answers.DECISIONS)
    assert show(page, photo, "decisions") == "3 decisions, the last is silence"
    rows = [row.text.split("\n") for row in page.find_all("#result-body li")]
    assert rows[0] == ["2.4 to 3 s", "silence", "88%"]
    parts = page.script(
        "return [...document.querySelectorAll('.strip div')].map(e => e.style.width)"
    )
    assert [round(float(part.rstrip("%")), 1) for part in parts] == [26.7, 53.3, 20.0]


@pytest.mark.parametrize("kind", answers.EMPTY)
def test_a_result_with_nothing_in_it_says_so(open_page, photo, kind):
    words = {
        "labels": "No label is likely enough.",
        "boxes": "Nothing was found in this photo.",
        "mask": "The result has no areas.",
        "text": "No text was recognized.",
        "decisions": "Nothing was heard that the model knows.",
        "values": "The result has no values.",
    }
    page = open_page(result=answers.EMPTY[kind])
    assert show(page, photo, words[kind]) == words[kind]
    assert page.read_console() == []


def test_several_labels_are_listed(open_page, photo):
    rows = answers.make_class(("cardiomegaly", 0.81), ("effusion", 0.62))["classes"]
    page = open_page(result=answers.make_answer("labels", rows, 0.81))
    assert show(page, photo, "labels") == "2 labels, the most likely is cardiomegaly"
    assert len(page.find_all(".bars li")) == 2


def test_boxes_of_an_app_s_own_code_may_lack_a_confidence(open_page, photo):
    box = {"label": 7, "index": 7, "box": [10, 10, 90, 90]}
    page = open_page(result={"kind": "boxes", "result": [box]})
    assert show(page, photo) == "1 found: 7"
    assert page.find("#result-body li").text.split() == ["1", "7"]
    assert page.text("#latency") == page.text("#problem") == ""


def test_a_result_that_is_damaged_is_an_error_with_words(open_page, photo):
    page = open_page(result={"kind": "boxes", "result": [{"label": "dog"}]})
    page.choose_file(photo())
    page.wait_for("#problem", "Something went wrong")
    assert page.button("Try again").is_displayed()


def test_a_result_of_an_unknown_kind_is_shown_as_it_is(open_page, photo):
    page = open_page(result={"kind": "triage", "result": {"level": 2}, "ms": 3})
    show(page, photo, "own result")
    assert page.text(".recognized") == '{\n  "level": 2\n}'
