"""Sketches of a session: constant memory, exact counts, little time, one file."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from sessions.overhead import measure_overhead

from edgekit_agent import Session
from edgekit_agent.sketches import CONFIDENCE_EDGES, VALUE_EDGES, Histogram, Sketches
from tests.builders.apps.model_folders import write_model_folder

GRAPH = "g (float[N,4] x) => (float[N,4] y) <float one = {1.0}> { y = Mul(x, one) }"


@pytest.fixture
def opened(tmp_path):
    answer = {"kind": "class", "logits": True}
    folder = write_model_folder(tmp_path, GRAPH, answer=answer, class_names=["a", "b", "c", "d"])
    return lambda **options: Session(str(folder), **options)


def record(label="a", confidence=0.5, ms=1.0):
    return {"kind": "class", "result": label, "confidence": confidence, "ms": ms}


def test_a_histogram_counts_as_numpy_does():
    values = np.random.default_rng(0).normal(0, 30, (40, 64)).astype(np.float32)
    made = Histogram(VALUE_EDGES)
    for row in values:
        made.add_array(row)
    expected, _ = np.histogram(values, [-np.inf, *VALUE_EDGES, np.inf])
    assert made.list_counts() == expected.tolist()
    found = made.to_json()
    assert found["count"] == values.size
    assert found["sum"] == pytest.approx(float(values.sum(dtype=np.float64)))
    single = Histogram(CONFIDENCE_EDGES)
    for value in (0.0, 0.05, 0.999, 1.0):
        single.add(value)
    assert (single.counts[0], single.counts[1], single.counts[-1]) == (1, 1, 2)


def test_predictions_are_counted_and_saved_whole(opened, tmp_path):
    session = opened()
    rng = np.random.default_rng(1)
    answers = [session.predict(rng.normal(0, 2, 4).astype(np.float32)) for _ in range(250)]
    session.sketches.save(str(tmp_path / "sketches.json"))
    saved = json.loads((tmp_path / "sketches.json").read_text())
    assert saved["count"] == 250
    assert saved["inputs"]["x"]["count"] == saved["outputs"]["y"]["count"] == 1000
    assert saved["inputs"]["x"]["counts"] == saved["outputs"]["y"]["counts"]
    labels = [answer["result"] for answer in answers]
    assert saved["labels"] == {label: labels.count(label) for label in set(labels)}
    assert sum(saved["confidence"]["counts"].values()) == 250
    assert saved["latency_ms"]["sum"] == pytest.approx(sum(a["ms"] for a in answers))
    assert len(saved["sample"]) == 100
    for kept in saved["sample"]:
        assert kept["label"] == labels[kept["number"] - 1]
    assert [path.name for path in tmp_path.glob("*sketches*")] == ["sketches.json"]


def test_the_file_does_not_grow_with_the_number_of_predictions():
    made = Sketches()
    sizes = []
    for number in range(20_000):
        made.add({}, {}, record(f"label {number}", number % 100 / 100, 1 + number % 50))
        if number in (9_999, 19_999):
            sizes.append(len(json.dumps(made.to_json())))
    assert sizes[1] < 1.05 * sizes[0] < 100_000
    assert len(made.to_json()["labels"]) == 1000


def test_each_prediction_is_kept_with_the_same_probability_and_the_same_seed():
    kept = np.zeros(1000)
    first = None
    for _ in range(2):
        made = Sketches()
        for _ in range(1000):
            made.add({}, {}, record())
        numbers = [each["number"] for each in made.to_json()["sample"]]
        first = first or numbers
        assert numbers == first
        kept[np.array(numbers) - 1] += 1
    assert len(set(first)) == 100
    # A tenth of each half, within four standard deviations.
    assert abs(sum(number <= 500 for number in first) - 50) < 4 * np.sqrt(100 * 0.25)


def test_threads_lose_no_count():
    made = Sketches()

    def work():
        for _ in range(500):
            made.add({"x": np.ones(3)}, {}, record())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.to_json()["count"] == 2000
    assert made.to_json()["inputs"]["x"]["count"] == 6000


def test_sketches_can_be_turned_off(opened):
    session = opened(sketches=False)
    session.predict([1, 2, 3, 4])
    assert session.sketches is None


def test_sketches_take_little_of_the_time_of_a_prediction(tmp_path):
    # The benchmark shows less than 2 %; the bound is loose, as other programs run here.
    shares = [
        measure_overhead(tmp_path / str(number), rounds=60, inference_ms=5)["share_of_5_ms"]
        for number in range(3)
    ]
    assert min(shares) < 0.1, shares
