"""Accuracy metrics of the agent: top1, top5 and binary, with errors that name the sample."""

import numpy as np
import pytest

from edgekit_agent.failures import AgentError
from edgekit_agent.measure.accuracy import hits_from_hex, hits_to_hex
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.metrics.rows import decode_rows
from edgekit_agent.scoring import MetricJob, MetricOptions
from edgekit_agent.worker_jobs import ScoreJob
from edgekit_agent.worker_results import Tally

ROWS = np.array([[1, 2, 3], [3, 2, 1], [1, 3, 2], [9, 1, 1], [1, 9, 1]], np.float32)
LABELS = np.array([2, 0, 0, 0, 2])
RIGHT = [True, True, False, True, False]


def compute(metric, values, label, number=0):
    sample = ScoredSample(number, {"y": values}, {"y": np.array(label)}, {})
    return load_statistic(metric)(sample, MetricOptions()).tolist()


@pytest.mark.parametrize("name", ["echo", "echo_batch_4"])
def test_every_sample_counts_once_whatever_the_batch(agent, model_ref, samples, name, tmp_path):
    outputs = tmp_path / "outputs.npy"
    job = ScoreJob(model_ref(name), samples(x=ROWS, label=LABELS), "top1", None, str(outputs))
    tally = agent.ask(job, Tally)
    assert tally == Tally("top1", 5, 3, hits_to_hex(RIGHT), (2, 0, 1, 0, 1))
    np.testing.assert_array_equal(np.load(outputs), ROWS)
    assert np.load(outputs).dtype == np.float32


@pytest.mark.parametrize("name", ["echo", "echo_batch_4"])
def test_several_metrics_are_computed_of_one_run(agent, model_ref, samples, name):
    jobs = (MetricJob("top1"), MetricJob("top5"))
    made = samples(x=ROWS, label=LABELS)
    tally = agent.ask(ScoreJob(model_ref(name), made, "top1", metrics=jobs), Tally)
    assert [each.metric for each in tally.statistics] == ["top1", "top5"]
    top1, top5 = (np.stack(decode_rows(each, tally.n)) for each in tally.statistics)
    assert top1.tolist() == [[1, 2], [1, 0], [0, 1], [1, 0], [0, 1]]
    assert top5[:, 0].all()  # three classes


def test_half_precision_outputs_are_written_as_float32(agent, model_ref, samples, tmp_path):
    path = tmp_path / "outputs.npy"
    made = samples(x=ROWS, label=LABELS)
    agent.ask(ScoreJob(model_ref("halves"), made, "top1", "y", str(path)), Tally)
    assert np.load(path).dtype == np.float32


def test_an_output_that_is_not_finite_names_the_sample(agent, model_ref, samples, tmp_path):
    rows = ROWS.copy()
    rows[3, 1] = -1
    path = tmp_path / "outputs.npy"
    made = samples(x=rows, label=LABELS)
    failure = agent.ask(ScoreJob(model_ref("log"), made, "top1", None, str(path)), Tally)
    assert failure.kind == "model_failed"
    assert "sample 3 is not finite" in failure.message
    assert [p.name for p in tmp_path.glob("*.npy*")] == []


@pytest.mark.parametrize(
    ("metric", "output", "label", "told"),
    [
        ("top1", None, None, "no target 'y'"),
        ("top1", "z", LABELS, "the model has no output 'z', only y"),
        ("f1", None, LABELS, "known: top1, top5, binary"),
        ("top1", None, LABELS + 1, "label 3 of sample 0"),
        ("top1", None, LABELS + 0.5, "labels must be integers"),
        ("top1", None, np.zeros((5, 2), int), "one label per sample"),
        ("binary", None, LABELS * 0, "metric binary needs one output value"),
    ],
)
def test_invalid_scoring_jobs_are_refused(agent, model_ref, samples, metric, output, label, told):
    job = ScoreJob(model_ref("echo"), samples(x=ROWS, label=label), metric, output)
    failure = agent.ask(job, Tally)
    assert failure.kind == "bad_job"
    assert told in failure.message


def test_binary_compares_one_value_with_a_half(agent, model_ref, samples):
    made = samples(x=np.array([[2], [-2], [1], [0]], np.float32), label=np.array([1, 1, 1, 0]))
    tally = agent.ask(ScoreJob(model_ref("one_value"), made, "binary"), Tally)
    assert (tally.correct, tally.predictions) == (3, (1, 0, 1, 0))
    failure = agent.ask(ScoreJob(model_ref("one_value"), made, "top1"), Tally)
    assert failure.hint == "use binary"


def test_top5_counts_a_label_among_the_five_best():
    rows = [compute("top5", np.arange(10.0), label) for label in (5, 4)]
    assert rows == [[1, 9], [0, 9]]


def test_top5_takes_the_lower_class_of_a_tie_as_argmax_does():
    rows = [compute("top5", np.zeros(8, np.float32), label) for label in (4, 5)]
    assert [hit for hit, _ in rows] == [1, 0]


@pytest.mark.parametrize("n", [1, 7, 8, 9, 1000])
def test_hits_are_encoded_as_hex_and_decoded_again(n):
    hits = (np.random.default_rng(n).random(n) < 0.5).tolist()
    assert hits_from_hex(hits_to_hex(hits), n).tolist() == hits


def test_the_first_sample_is_the_most_significant_bit():
    assert hits_to_hex([True, False, False, False, False, False, False, False, True]) == "8080"


def test_a_bitmap_of_another_length_is_refused():
    with pytest.raises(ValueError, match="not a bitmap of 9 samples"):
        hits_from_hex("ff", 9)


def test_a_bad_label_is_named_by_its_place_in_the_data():
    with pytest.raises(AgentError, match="sample 11"):
        compute("top1", np.zeros(3), 3, number=11)


@pytest.mark.zoo
@pytest.mark.parametrize(
    ("file", "runtime", "expected"),
    [
        ("model.onnx", "onnxruntime", 0.881),
        ("model.tflite", "litert", 0.881),
        ("reference_int8.tflite", "litert", 0.878),
    ],
)
def test_resnet8_has_its_published_accuracy(agent, zoo, samples, file, runtime, expected):
    from edgekit_agent.runtimes import import_runtime
    from edgekit_agent.worker_jobs import ModelRef

    if runtime == "litert":
        pytest.importorskip("ai_edge_litert")
    path = str(zoo / "ic-resnet8" / file)
    name = import_runtime(runtime)(path, 1).inputs[0].name
    data = np.load(zoo / "ic-resnet8" / "eval.npz")
    made = samples(label=data["y"], **{name: data["x"]})
    tally = agent.ask(ScoreJob(ModelRef(path, runtime), made, "top1"), Tally)
    assert tally.n == 1000
    assert tally.correct / 1000 == pytest.approx(expected, abs=0.004)


def test_the_error_for_an_empty_output_does_not_name_the_labels():
    with pytest.raises(AgentError, match="the scored output of sample 7 is empty"):
        compute("top1", np.zeros(0, np.float32), 2, number=7)
