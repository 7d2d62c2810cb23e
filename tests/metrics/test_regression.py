"""MAE, RMSE, R2, relative RMS and cosine, against scikit-learn and the tasks' eval.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from edgekit.errors import UserError
from edgekit.metrics.registry import get_metric
from edgekit_agent.failures import AgentError
from tests.builders.metrics.values import (
    check_weights,
    compute_row,
    compute_table,
    compute_trivial,
    compute_value,
    run_task,
)

NAMES = ("mae", "rmse", "r2", "relative-rms", "cosine")


@pytest.fixture(params=[1, 3], ids=["one value", "three values"])
def pairs(request):
    rng = np.random.default_rng(request.param)
    targets = rng.normal(1e4, [10.0, 1.0, 300.0][: request.param], (50, request.param))
    outputs = (targets + rng.normal(0, 1, targets.shape)).astype(np.float32)
    return outputs, targets.astype(np.float32)


def test_errors_equal_those_of_scikit_learn(pairs):
    outputs, targets = pairs
    exact = [values.astype(np.float64) for values in (targets, outputs)]
    flat = [values.ravel() for values in exact]
    assert compute_value("mae", *pairs) == pytest.approx(
        reference.mean_absolute_error(*flat), rel=1e-12
    )
    assert compute_value("rmse", *pairs) == pytest.approx(
        reference.root_mean_squared_error(*flat), rel=1e-12
    )
    assert compute_value("r2", *pairs) == pytest.approx(reference.r2_score(*exact), rel=1e-9)


def test_relative_rms_and_cosine_of_known_vectors():
    assert compute_value("relative-rms", [[3.0, 4.0]], [[3.0, 0.0]]) == pytest.approx(4 / 3)
    assert compute_value("relative-rms", [[1.0], [0.0]], [[2.0], [0.0]]) == pytest.approx(0.5)
    assert compute_row("cosine", [1.0, 1.0], [2.0, 0.0]) == pytest.approx([np.sqrt(0.5)])
    assert compute_row("cosine", [-3e30, 0.0], [1e-30, 0.0]) == pytest.approx([-1.0])
    assert compute_row("cosine", [0.0, 0.0], [1.0, 0.0]) == pytest.approx([0.0])


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_model_gets_the_best_value(name, pairs):
    _, targets = pairs
    best = 1.0 if get_metric(name).higher_is_better else 0.0
    assert compute_value(name, targets, targets) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_weights_count_like_repeated_samples(name, pairs):
    check_weights(name, compute_table(name, *pairs))


def test_r2_of_one_repeated_sample_is_undefined(pairs):
    table = compute_table("r2", *pairs)
    once = np.zeros((1, table.n))
    once[0, 3] = table.n
    value = get_metric("r2").prepare(table, None)(once)
    assert np.isnan(value).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=30), st.data())
def test_no_constant_is_better_than_the_trivial_value(values, data):
    targets = np.array(values, np.float32)[:, None]
    constant = data.draw(st.floats(-1e6, 1e6, width=32))
    for name in ("mae", "rmse", "relative-rms"):
        if name == "relative-rms" and not targets.any():
            continue
        least = compute_trivial(name, targets)
        found = compute_value(name, np.full_like(targets, constant), targets)
        assert found >= least * (1 - 1e-6) - 1e-9


def test_trivial_values_are_those_of_median_and_mean(pairs):
    _, targets = pairs
    exact = targets.astype(np.float64)
    median = np.abs(exact - np.median(exact, axis=0)).mean()
    assert compute_trivial("mae", targets) == pytest.approx(median)
    assert compute_trivial("rmse", targets) == pytest.approx(np.sqrt(exact.var(axis=0).mean()))
    assert compute_trivial("r2", targets) == 0


def test_trivial_cosine_is_that_of_the_best_direction():
    rng = np.random.default_rng(0)
    targets = rng.normal([3.0, 1.0, 0.0], 1.0, (40, 3))
    best = compute_trivial("cosine", targets)
    assert 0.5 < best < 1
    for _ in range(200):
        outputs = np.broadcast_to(rng.normal(size=3), targets.shape)
        assert compute_value("cosine", outputs, targets) <= best + 1e-12


def test_samples_of_different_lengths_are_pooled():
    targets = [np.zeros(1), np.zeros(3)]
    outputs = [np.full(1, 4.0), np.zeros(3)]
    assert compute_value("mae", outputs, targets) == 1.0
    assert compute_trivial("mae", [np.zeros(3), np.ones(1)]) == 0.25
    assert compute_trivial("rmse", [np.zeros(3), np.ones(1)]) == pytest.approx(np.sqrt(3 / 16))
    with pytest.raises(UserError, match="different numbers of values"):
        compute_value("r2", outputs, targets)


def test_channels_first_and_channels_last_are_matched():
    image = np.arange(24.0).reshape(2, 3, 4)
    assert compute_value("mae", [np.moveaxis(image, 0, -1)], [image]) == 0
    assert compute_value("mae", [np.moveaxis(image, -1, 0)[None]], [image]) == 0


@pytest.mark.parametrize(
    ("output", "target", "said"),
    [
        (np.zeros(2), np.zeros(3), "has shape"),
        (np.zeros((2, 3)), np.zeros(6), "has shape"),
        (np.zeros(2), np.array([0.0, np.nan]), "not finite"),
        (np.array([0.0, np.inf]), np.zeros(2), "not finite"),
        (np.zeros(0), np.zeros(0), "is empty"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_that_do_not_fit_the_targets_are_refused(name, output, target, said):
    with pytest.raises(AgentError, match=said):
        compute_row(name, output, target)


def test_r2_of_images_is_refused():
    with pytest.raises(AgentError, match="up to 1000 values"):
        compute_row("r2", np.zeros((40, 40)), np.zeros((40, 40)))


@pytest.mark.zoo
def test_values_of_a_real_regressor_equal_those_of_its_eval():
    task = run_task("reg-california-mlp")
    outputs = np.concatenate([call[0] for call in task.calls])
    targets = np.load(task.folder / "eval.npz")["y"]
    outputs = outputs[: len(targets)]
    # eval.py sums in float32.
    assert compute_value("mae", outputs, targets) == pytest.approx(task.values["mae"], rel=1e-6)
    assert compute_value("r2", outputs, targets) == pytest.approx(task.values["r2"], abs=1e-6)
    assert compute_trivial("mae", targets) > 2 * task.values["mae"]
