"""Character and word error rates, against jiwer and the tasks' eval.py."""

import csv

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_agent.failures import AgentError
from edgekit_agent.postprocess import postprocess
from edgekit_agent.scoring import MetricOptions, Postprocess
from tests.builders.metrics.values import (
    check_weights,
    compute_row,
    compute_table,
    compute_trivial,
    compute_value,
    run_task,
)

TEXTS = st.text(alphabet="ab cß", max_size=20)
REFERENCES = TEXTS.filter(str.strip)


def encode(text):
    return np.array([ord(character) for character in text], np.int32)


def compute_rate(name, outputs, targets, options=None):
    return compute_value(name, map(encode, outputs), map(encode, targets), options, "text")


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(TEXTS, REFERENCES), min_size=1, max_size=5))
def test_error_rates_equal_those_of_jiwer(pairs):
    outputs, targets = map(list, zip(*pairs, strict=True))
    cer, wer = jiwer.cer(targets, outputs), jiwer.wer(targets, outputs)
    assert compute_rate("cer", outputs, targets) == pytest.approx(cer, abs=1e-12)
    assert compute_rate("wer", outputs, targets) == pytest.approx(wer, abs=1e-12)


def test_long_texts_are_compared_as_jiwer_does():
    rng = np.random.default_rng(0)
    output, target = ("".join(rng.choice(list("abcd "), 700)) for _ in range(2))
    cer, wer = jiwer.cer(target, output), jiwer.wer(target, output)
    assert compute_rate("cer", [output], [target]) == pytest.approx(cer, abs=1e-12)
    assert compute_rate("wer", [output], [target]) == pytest.approx(wer, abs=1e-12)


def test_rows_have_edits_length_and_whether_the_text_is_exact():
    assert compute_row("cer", encode("kitten"), encode("sitting")).tolist() == [3, 7, 0]
    assert compute_row("cer", encode(" ok "), encode("ok")).tolist() == [0, 2, 1]
    assert compute_row("wer", encode("a\tb  c"), encode("a b d")).tolist() == [1, 3, 0]
    assert compute_row("cer", encode(""), encode("")).tolist() == [0, 0, 1]
    assert compute_row("cer", encode("ab"), encode("")).tolist() == [2, 0, 0]


def test_rates_are_over_all_characters_and_not_over_texts():
    assert compute_rate("cer", ["b", "aaa"], ["a", "aaa"]) == pytest.approx(1 / 4)
    assert np.isnan(compute_rate("cer", ["b"], [""]))


def test_the_ignored_code_point_is_padding():
    padded = MetricOptions(ignore=0)
    assert compute_rate("cer", ["ab\0\0"], ["ab\0"], padded) == 0


@pytest.mark.parametrize("name", ["cer", "wer"])
def test_weights_count_like_repeated_samples(name):
    outputs, targets = ["a b", "c d", "x", "y z"], ["a c", "c d", "xyz", "z z z"]
    check_weights(name, compute_table(name, map(encode, outputs), map(encode, targets)))


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("cer", ("stop", "stop", "go"), 3 / 10),
        ("wer", ("stop", "stop", "go"), 1 / 3),
        ("cer", ("abcd", "ef", "g", "h"), 7 / 8),
        ("cer", ("A-12", "A-35", "B-15"), 3 / 12),
        ("wer", ("turn left now", "turn right here", "go right now"), 3 / 9),
        ("cer", ("", "a"), 1),
    ],
)
def test_the_trivial_text_is_empty_or_the_most_common_one_or_that_of_each_position(
    name, texts, value
):
    assert compute_trivial(name, map(encode, texts)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("output", "said"),
    [(np.zeros((5, 7), np.float32), "has type float32"), (np.array([-1]), "not code points")],
)
def test_outputs_that_are_no_text_are_refused(output, said):
    with pytest.raises(AgentError, match=said):
        compute_row("cer", output, encode("a"))
    with pytest.raises(AgentError, match=said):
        compute_trivial("cer", [output])


@pytest.mark.zoo
def test_values_of_a_real_recognizer_equal_those_of_its_eval():
    task = run_task("ocr-rec-ppocrv4", 24)
    charset = (task.folder / task.facts["charset"]).read_text(encoding="utf-8").split("\n")
    settings_of_ctc = Postprocess("ctc", charset=(*charset, " "))
    scores = np.concatenate([call[0] for call in task.calls])[:24]
    texts = [postprocess({"x": each}, {}, settings_of_ctc)["text"] for each in scores]
    with (task.folder / "eval.csv").open(encoding="utf-8", newline="") as file:
        targets = [encode(line["text"]) for line in csv.DictReader(file)][:24]
    table = compute_table("cer", texts, targets, output_name="text")
    assert compute_value("cer", texts, targets) == pytest.approx(task.values["cer"], abs=1e-9)
    assert table.stack()[:, 2].mean() == pytest.approx(task.values["line_acc"])
    assert compute_trivial("cer", targets) > 0.5
