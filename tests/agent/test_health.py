"""Health checks: comparison of a model's outputs with its golden samples."""

import numpy as np
import pytest

from edgekit_agent.measure.health import INCOMPARABLE
from edgekit_agent.worker_jobs import HealthJob
from edgekit_agent.worker_results import Health

ROWS = np.arange(15, dtype=np.float32).reshape(5, 3) + 1


@pytest.fixture
def ask(agent, model_ref, tmp_path):
    def run(model, limit=0.1, **arrays):
        path = tmp_path / "golden.npz"
        np.savez(path, **{name.replace("_", ":"): array for name, array in arrays.items()})
        return agent.ask(HealthJob(model_ref(model), str(path), limit), Health)

    return run


@pytest.mark.parametrize("model", ["echo", "echo_batch_4"])
def test_a_model_that_answers_as_before_is_healthy(ask, model):
    assert ask(model, input_x=ROWS, output_y=ROWS) == Health(True, 0.0)


def test_the_error_is_relative_to_the_output(ask):
    health = ask("echo", input_x=ROWS * 1e-6, output_y=ROWS * 1.05e-6)
    assert health.healthy
    assert health.relative_error == pytest.approx(0.05 / 1.05, rel=1e-4)
    health = ask("echo", 0.01, input_x=ROWS, output_y=ROWS * 1.05)
    assert not health.healthy
    assert "output y has a relative RMS error of 0.0476" in health.detail


def test_one_bad_golden_sample_among_many_is_detected(ask):
    rows = ROWS.copy()
    rows[4] = -rows[4]
    assert not ask("echo", input_x=ROWS, output_y=rows).healthy


def test_another_shape_or_a_number_that_is_not_finite_is_never_healthy(ask):
    health = ask("echo", 1e8, input_x=ROWS, output_y=ROWS[:, :2])
    assert (health.healthy, health.relative_error) == (False, INCOMPARABLE)
    health = ask("log", 1e8, input_x=-ROWS, output_y=ROWS)
    assert health.detail.startswith("output y is not finite")


def test_values_that_are_not_finite_must_equal_those_of_the_host(ask):
    rows = ROWS.copy()
    rows[:, 1], rows[0, 2] = 0, -1
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.log(rows)
    assert ask("log", input_x=rows, output_y=expected) == Health(True, pytest.approx(0, abs=1e-6))
    assert not ask("log", input_x=rows, output_y=expected * 1.5).healthy
    assert ask("log", input_x=rows, output_y=np.where(expected == -np.inf, 3, expected)).detail
    health = ask("log", 1e8, input_x=rows, output_y=-expected)
    assert health.detail.startswith("output y differs where the expected output is not finite")
    expected[1, 0] = np.nan
    assert not ask("log", 1e8, input_x=rows, output_y=expected).healthy


def test_an_output_that_is_never_finite_can_be_healthy(ask):
    zeros = np.zeros_like(ROWS)
    assert ask("log", input_x=zeros, output_y=zeros - np.inf) == Health(True, 0.0)
    assert not ask("log", input_x=zeros, output_y=zeros + np.inf).healthy


def test_outputs_that_are_all_zero_are_compared_by_absolute_error(ask):
    zeros = np.zeros_like(ROWS)
    assert ask("echo", input_x=zeros, output_y=zeros).healthy
    assert not ask("echo", input_x=zeros + 1, output_y=zeros).healthy


def test_golden_samples_of_another_model_are_refused(ask):
    assert (
        "these golden samples belong to another model; the model lacks a, x"
        in ask("echo", input_a=ROWS, output_y=ROWS).message
    )
    assert "the model lacks z" in ask("echo", input_x=ROWS, output_z=ROWS).message
    assert "the arrays output:NAME are missing" in ask("echo", input_x=ROWS).message


def test_a_file_without_golden_samples_is_refused(agent, model_ref, tmp_path):
    (tmp_path / "golden.npz").write_bytes(b"nothing of the kind")
    job = HealthJob(model_ref("echo"), str(tmp_path / "golden.npz"))
    assert agent.ask(job, Health).kind == "bad_job"


def test_outputs_whose_squares_overflow_are_compared(ask):
    big = np.full((5, 3), 1e300)
    health = ask("echo", input_x=ROWS, output_y=big)
    assert (health.healthy, health.relative_error) == (False, pytest.approx(1.0))
    mixed = np.where(np.arange(3) < 1, 1e300, ROWS.astype(np.float64))
    assert not ask("echo", input_x=ROWS, output_y=mixed).healthy
