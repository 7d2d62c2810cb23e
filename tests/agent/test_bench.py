"""Latency and memory measurements of the agent."""

import numpy as np
import pytest

from edgekit_agent.measure.benchmark import is_drifting
from edgekit_agent.worker_jobs import BenchJob, ModelRef
from edgekit_agent.worker_results import Report

SHORT = {"seconds": 0.05, "warmup_s": 0.2, "min_runs": 20, "max_runs": 400}


def test_the_number_of_timed_runs_is_within_its_limits(agent, model_ref):
    report = agent.ask(BenchJob(model_ref("echo"), **SHORT), Report)
    latency = report.latency
    assert 20 <= len(latency.values_ms) <= 400
    assert all(0 < value < 100 for value in latency.values_ms)
    assert latency.warmup_runs >= 2
    assert latency.load_ms > 0
    assert set(latency.doubts) <= {"unsteady", "throttled", "loaded", "drifting"}
    assert 10 << 20 < report.runtime_rss_bytes <= report.peak_rss_bytes < 1 << 30
    assert (report.runtime, report.runtime_version[0].isdigit()) == ("onnxruntime", True)


def test_at_most_max_runs_are_timed(agent, model_ref):
    job = BenchJob(model_ref("echo"), seconds=5.0, warmup_s=0.1, min_runs=3, max_runs=7)
    assert len(agent.ask(job, Report).latency.values_ms) == 7


def test_random_inputs_follow_the_signature_and_the_dims(agent, model_ref):
    job = BenchJob(model_ref("tokens"), dims={"L": 16}, **SHORT)
    assert isinstance(agent.ask(job, Report), Report)


def test_real_samples_are_used_at_the_models_own_batch(agent, model_ref, samples):
    made = samples(x=np.ones((6, 3), np.float32))
    assert isinstance(agent.ask(BenchJob(model_ref("echo_batch_4"), made, **SHORT), Report), Report)
    wrong = samples(x=np.ones((6, 4), np.float32))
    failure = agent.ask(BenchJob(model_ref("echo_batch_4"), wrong, **SHORT), Report)
    assert failure.kind == "bad_job"


def test_the_peak_of_one_model_does_not_raise_that_of_the_next(agent, model_ref, samples):
    big = samples(x=np.ones((2_000_000, 3), np.float32))
    first = agent.ask(BenchJob(model_ref("echo"), big, **SHORT), Report)
    second = agent.ask(BenchJob(model_ref("echo"), **SHORT), Report)
    assert abs(first.peak_rss_bytes - second.peak_rss_bytes) < 12 << 20


def test_invalid_numbers_of_runs_are_refused(agent, model_ref):
    job = BenchJob(model_ref("echo"), min_runs=5, max_runs=4)
    assert agent.ask(job, Report).kind == "bad_job"


def test_a_trend_is_distinguished_from_noise():
    noise = np.random.default_rng(0).normal(1.0, 0.05, 90)
    assert not is_drifting(noise.tolist())
    assert is_drifting((noise * np.linspace(1.0, 1.3, 90)).tolist())
    assert not is_drifting([1.0, 2.0])


@pytest.mark.zoo
def test_an_int8_tflite_file_is_timed(agent, zoo):
    pytest.importorskip("ai_edge_litert")
    model = ModelRef(str(zoo / "ic-resnet8" / "reference_int8.tflite"), "litert")
    report = agent.ask(BenchJob(model, **SHORT), Report)
    assert report.runtime == "litert"
    assert report.latency.values_ms
