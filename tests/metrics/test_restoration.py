"""PSNR and SSIM, against scipy and numbers of scikit-image 0.26."""

import numpy as np
import pytest
from scipy import ndimage

from edgekit_agent.failures import AgentError
from edgekit_agent.scoring import MetricOptions
from tests.builders.metrics.values import (
    check_weights,
    compute_row,
    compute_table,
    compute_trivial,
    compute_value,
)

BYTES = MetricOptions(data_range=255.0)


def make_pair():
    """Two images [24, 17, 3] of whole numbers, without random numbers."""
    y, x, channel = np.mgrid[:24, :17, :3].astype(float)
    target = np.floor((x * 7 + y * 13 + channel * 50) * 5) % 256
    return target + (x * 3 + y * y + channel) % 40 - 10, target


def compute_ssim(first, second, data_range):
    """SSIM of one channel by its formula, with scipy's Gaussian filter."""

    def blur(values):
        return ndimage.gaussian_filter(values, 1.5, truncate=3.5)[5:-5, 5:-5]

    mean1, mean2 = blur(first), blur(second)
    variance1, variance2 = blur(first**2) - mean1**2, blur(second**2) - mean2**2
    covariance = blur(first * second) - mean1 * mean2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    top = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return (top / ((mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2))).mean()


def test_ssim_equals_that_of_scikit_image():
    output, target = make_pair()
    assert compute_row("ssim", output, target, BYTES) == pytest.approx([0.9851590457026211])
    expected = (0.984913307681336, 0.9853558890354577, 0.98520794039107)
    for channel, value in enumerate(expected):
        row = compute_row("ssim", output[..., channel], target[..., channel], BYTES)
        assert row == pytest.approx([value], rel=1e-12)


def test_ssim_equals_its_formula():
    rng = np.random.default_rng(0)
    target = rng.random((31, 40))
    output = target + rng.normal(0, 0.3, target.shape)
    expected = compute_ssim(output, target, 1.0)
    assert compute_row("ssim", output, target) == pytest.approx([expected], rel=1e-12)


def test_channels_may_be_first_or_last():
    output, target = make_pair()
    first, expected = np.moveaxis(target, -1, 0), compute_row("ssim", output, target, BYTES)
    assert compute_row("ssim", np.moveaxis(output, -1, 0), first, BYTES) == pytest.approx(expected)
    assert compute_row("ssim", output, first, BYTES) == pytest.approx(expected)
    one = compute_row("ssim", output[..., 0], target[..., 0], BYTES)
    assert compute_row("ssim", output[..., :1], target[..., :1], BYTES) == one
    assert compute_row("ssim", output[None, ..., 0], target[None, ..., 0], BYTES) == one


def test_psnr_is_the_mean_over_images_in_decibels():
    targets = [np.zeros((4, 4)), np.zeros((4, 4))]
    outputs = [np.full((4, 4), 0.1), np.full((4, 4), 0.01)]
    assert compute_value("psnr", outputs, targets) == pytest.approx((20 + 40) / 2)
    wide = MetricOptions(data_range=10.0)
    assert compute_value("psnr", outputs, targets, wide) == pytest.approx((40 + 60) / 2)


def test_identical_images_have_100_decibels_and_ssim_1():
    _, target = make_pair()
    assert compute_value("psnr", [target], [target], BYTES) == pytest.approx(100)
    assert compute_value("ssim", [target], [target], BYTES) == pytest.approx(1)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_weights_count_like_repeated_samples(name):
    rng = np.random.default_rng(1)
    targets = rng.random((6, 12, 13))
    outputs = targets + rng.normal(0, rng.random((6, 1, 1)), targets.shape)
    check_weights(name, compute_table(name, outputs, targets))


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_the_trivial_value_is_that_of_the_best_constant_image(name):
    rng = np.random.default_rng(2)
    targets = np.clip(rng.random((11, 12, 3)) + rng.normal(0, 0.1, (9, 11, 12, 3)), 0, 1)
    trivial = compute_trivial(name, targets)
    mean = np.broadcast_to(targets.mean(axis=0), targets.shape)
    assert trivial == pytest.approx(compute_value(name, mean, targets))
    assert trivial > compute_value(name, np.full_like(targets, 0.5), targets)
    dark = compute_trivial(name, np.zeros((3, 11, 12)))
    assert dark == pytest.approx(100 if name == "psnr" else 1)


def test_images_of_different_sizes_are_compared_with_their_mean_gray():
    rng = np.random.default_rng(3)
    targets = [rng.random((11, 12)), rng.random((20, 11))]
    gray = np.concatenate([target.ravel() for target in targets]).mean()
    outputs = [np.full(target.shape, gray) for target in targets]
    expected = compute_value("psnr", outputs, targets)
    assert compute_trivial("psnr", targets) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "shape", "options", "said"),
    [
        ("ssim", (10, 30), MetricOptions(), "at least 11 x 11 pixels"),
        ("ssim", (40,), MetricOptions(), "needs images"),
        ("psnr", (12, 12), MetricOptions(data_range=0.0), "data_range must be positive"),
    ],
)
def test_images_and_options_that_do_not_fit_are_refused(name, shape, options, said):
    with pytest.raises(AgentError, match=said):
        compute_row(name, np.zeros(shape), np.zeros(shape), options)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_targets_beyond_the_data_range_are_refused(name):
    output, target = make_pair()
    with pytest.raises(AgentError, match="more than the data range, 1"):
        compute_row(name, output, target)
