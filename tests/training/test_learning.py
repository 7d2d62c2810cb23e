"""Steps and losses of learning, against the formulas."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from edgekit.training.learning.delayed_interruption import delay_interruption  # noqa: E402
from edgekit.training.learning.losses import compute_feature_loss, compute_output_loss  # noqa: E402
from edgekit.training.learning.optimizer import RelativeAdam  # noqa: E402
from edgekit.training.learning.targets import FeatureTarget, OutputTarget  # noqa: E402
from tests.builders.tiny import normal  # noqa: E402


def step(optimizer, gradients, number, rate=0.01):
    optimizer.add([tf.constant(g) for g in gradients], tf.constant(1.0))
    optimizer.step(tf.constant(rate), tf.constant(float(number)))


def test_the_first_step_is_the_rate_times_the_size_of_the_tensor():
    large, small = 100 * normal(4, 5), normal(3, 2, seed=1)
    variables = {"large": tf.Variable(large), "small": tf.Variable(small)}
    optimizer = RelativeAdam(variables, masks={}, factors={})
    step(optimizer, [normal(4, 5, seed=2), normal(3, 2, seed=3)], 1)
    for name, before in (("large", large), ("small", small)):
        size = np.sqrt(np.square(before).mean())
        moved = np.abs(variables[name].numpy() - before)
        np.testing.assert_allclose(moved, 0.01 * size, rtol=1e-3)


def test_masked_entries_stay_and_biases_of_zero_move():
    weight = normal(4, 4)
    mask = np.zeros((4, 4), bool)
    mask[1] = True
    variables = {
        "weight": tf.Variable(weight),
        "zero": tf.Variable(np.zeros(4, np.float32)),
        "bias": tf.Variable(normal(4, seed=1)),
    }
    optimizer = RelativeAdam(variables, masks={"weight": mask}, factors={})
    step(optimizer, [np.ones((4, 4), np.float32), np.ones(4, np.float32), np.ones(4, "f")], 1)
    assert (variables["weight"].numpy()[1] == weight[1]).all()
    assert (variables["weight"].numpy()[0] != weight[0]).all()
    assert (variables["zero"].numpy() < 0).all()


def test_gradients_that_are_not_finite_change_nothing():
    variable = tf.Variable(normal(3, 3))
    before = variable.numpy()
    optimizer = RelativeAdam({"w": variable}, masks={}, factors={})
    step(optimizer, [np.full((3, 3), np.nan, np.float32)], 1)
    np.testing.assert_array_equal(variable.numpy(), before)


def test_the_divergence_of_scores_is_that_of_their_distributions():
    teacher, student = normal(6, 5), normal(6, 5, seed=1)
    p, q = (np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in (teacher, student))
    expected = (p * np.log(p / q)).sum(axis=1).mean()
    logits = OutputTarget(name="y", wanted="y", kind="logits")
    shares = OutputTarget(name="y", wanted="y", kind="probabilities")
    found = float(compute_output_loss(logits, tf.constant(student), tf.constant(teacher)))
    again = float(compute_output_loss(shares, tf.constant(q, "float32"), tf.constant(p, "float32")))
    np.testing.assert_allclose([found, again], expected, rtol=1e-4)


def test_values_count_relative_to_their_spread_and_infinite_ones_do_not():
    target = OutputTarget(name="y", wanted="y", kind="values", spread=4.0)
    wanted = np.array([[0, 2, np.inf]], np.float32)
    value = np.array([[2, 2, 5]], np.float32)
    found = float(compute_output_loss(target, tf.constant(value), tf.constant(wanted)))
    np.testing.assert_allclose(found, 4 / 4 / 3, rtol=1e-6)


def test_a_feature_is_compared_in_the_students_channels():
    wanted = normal(2, 6, 3, 3)
    target = FeatureTarget(name="a", wanted="b", axis=1, channels=(5, 0), spread=2.0)
    value = wanted[:, [5, 0]] + 1
    found = float(compute_feature_loss(target, tf.constant(value), tf.constant(wanted), None))
    np.testing.assert_allclose(found, 0.5, rtol=1e-5)


def test_a_linear_map_takes_the_students_channels_to_the_teachers():
    value, matrix = normal(2, 3, 4, 4), normal(3, 5, seed=1)
    wanted = np.einsum("nchw,cd->ndhw", value, matrix)
    target = FeatureTarget(name="a", wanted="b", axis=1, channels=None, spread=1.0, widths=(3, 5))
    found = compute_feature_loss(
        target, tf.constant(value), tf.constant(wanted), tf.constant(matrix)
    )
    assert float(found) < 1e-8


def interrupt(times, done):
    """Send Ctrl-C a number of times inside a block, and note that its end was reached."""
    with delay_interruption():
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        done.append(times)


def test_an_interruption_waits_for_the_end_of_a_block_and_a_second_one_does_not():
    done = []
    with pytest.raises(KeyboardInterrupt):
        interrupt(1, done)
    assert done == [1]
    with pytest.raises(KeyboardInterrupt):
        interrupt(2, done)
    assert done == [1]
