"""The page with models that ``edgekit_agent.Session`` runs."""

from contextlib import ExitStack

import numpy as np
import pytest

from edgekit_agent.failures import AgentError
from edgekit_agent.session import Session
from tests.builders.apps.model_folders import write_model_folder
from tests.pages.test_results import ORANGE, PIXEL, YELLOW
from tests.pages.test_sounds import write_wav

pytestmark = pytest.mark.browser

BRIGHT = (
    "g (float[N,8,8,3] x) => (float[N,2] y) <float[3] k = {1,1,1}, float half = {0.4}> "
    "{ a = ReduceMean<axes = [1, 2, 3], keepdims = 0>(x) b = Sub(half, a) "
    "c = Neg(b) d = Unsqueeze<axes = [1]>(b) e = Unsqueeze<axes = [1]>(c) "
    "y = Concat<axis = 1>(d, e) }"
)
BOXES = (
    "g (float[1,16,16,3] x) => (float[1,2,6] boxes) <float zero = {0.0}, "
    "float[1,2,6] known = {2,5,8,11,0.75,16, 9,5,15,11,0.5,0}> "
    "{ m = ReduceMax<keepdims = 0>(x) z = Mul(m, zero) boxes = Add(known, z) }"
)
COLORS = "g (float[N,16,16,3] x) => (float[N,16,16,3] y) <float k = {1.0}> { y = Mul(x, k) }"
LOUD = (
    "g (float[N,800] x) => (float[N,1] y) { a = Abs(x) y = ReduceMax<axes = [1], keepdims = 1>(a) }"
)
RISK = "g (float[N,3] x) => (float[N,1] y) <float[3,1] w = {0.1,1,2}> { y = MatMul(x, w) }"
LETTERBOX = {"scale": 1 / 255, "resize_mode": "letterbox"}


@pytest.fixture
def open_model(open_page, tmp_path):
    """Open the page of an app whose answers are those of a model."""
    with ExitStack() as stack:

        def open_one(text, input_kind, config=None, *, opset=17, **fields):
            folder = write_model_folder(tmp_path / "model", text, opset=opset, **fields)
            session = stack.enter_context(Session(str(folder)))
            page = open_page(config={"input": input_kind, **(config or {})})

            def answer(body):
                try:
                    return session.predict_bytes(body, page.app.bodies[-1][1].partition(";")[0])
                except AgentError as error:
                    page.app.status = 400
                    failure = error.failure
                    return {"error": {"code": failure.kind, "message": failure.message}}

            page.app.result = answer
            return page

        yield open_one


def test_a_classifier_names_the_class_of_a_photo(open_model, tmp_path):
    image = pytest.importorskip("PIL.Image")
    answer = {"kind": "class", "logits": True}
    preprocess = {"scale": 1 / 255, "resize_mode": "stretch"}
    names = ["dark", "bright"]
    page = open_model(
        BRIGHT, "image", opset=12, answer=answer, preprocess=preprocess, class_names=names
    )
    for name, value in (("bright", 240), ("dark", 10)):
        image.fromarray(np.full((60, 80, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
        page.choose_file(tmp_path / f"{name}.png")
        page.wait_for("#summary", name)
        assert len(page.find_all(".bars li")) == 2


def test_boxes_of_a_letterboxed_detector_are_drawn_on_the_photo(open_model, photo):
    page = open_model(
        BOXES,
        "image",
        answer={"kind": "boxes"},
        postprocess={"kind": "boxes", "size": [16, 16]},
        preprocess=LETTERBOX,
    )
    page.choose_file(photo(320, 160))
    assert page.wait_for("#summary", "2 found") == "2 found: 1 × 16, 1 × 0"
    # 320 x 160 become 16 x 8 with 4 rows of border above: 2, 5 is 40, 20 in the photo.
    assert page.script(PIXEL, 40 / 320, 90 / 160) == ORANGE
    assert page.script(PIXEL, 160 / 320, 90 / 160) == ORANGE
    assert page.script(PIXEL, 180 / 320, 90 / 160) == YELLOW


def test_a_letterboxed_mask_covers_what_the_model_saw(open_model, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((80, 160, 3), np.uint8)
    pixels[:40, :, 0] = pixels[40:, :, 2] = 255  # red above blue
    image.fromarray(pixels).save(tmp_path / "flag.png")
    answer = {"kind": "mask", "class_axis": 2}
    names = ["red", "green", "blue"]
    page = open_model(COLORS, "image", answer=answer, preprocess=LETTERBOX, class_names=names)
    page.choose_file(tmp_path / "flag.png")
    page.wait_for("#summary", "Largest area")
    # Class 0 is drawn in yellow over red, class 2 in pink over blue; the edge is in the middle.
    above, below = page.script(PIXEL, 0.5, 0.4), page.script(PIXEL, 0.5, 0.6)
    assert above == pytest.approx([255, 128, 6], abs=3)
    assert below == pytest.approx([153, 64, 196], abs=3)


def test_a_sound_becomes_decisions_over_time(open_model, tmp_path):
    page = open_model(
        LOUD,
        "audio",
        opset=12,
        answer={"kind": "decisions", "threshold": 0.1},
        class_names=["quiet", "loud"],
        audio={"rate": 16000, "samples": 800, "step": 800},
        input_settings={"axes": {"x": 0}},
    )
    page.choose_file(write_wav(tmp_path / "tone.wav"))
    page.wait_for("#summary", "loud")
    assert page.find_all("#result-body li")[0].text.startswith("0 to 0.5 s")


def test_a_row_becomes_a_number_and_a_wrong_row_words(open_model):
    names = ["age", "weight", "height"]
    fields = [{"name": name, "type": "number"} for name in names]
    page = open_model(
        RISK,
        "form",
        {"fields": fields, "outputs": {"y": {"label": "Risk", "unit": "points"}}},
        answer={"kind": "values"},
        fields=[{"input": "x", "fields": names}],
    )
    for number, value in enumerate(("50", "2", "1,5")):
        page.find(f"#field-{number}").send_keys(value)
    page.button("Get the result").click()
    assert page.wait_for("#summary", "Risk") == "Risk: 10 points"
    page.find("#field-0").send_keys("e999")
    page.button("Get the result").click()
    assert page.text("#field-0-wrong") == "Enter a number, such as 36.5."
