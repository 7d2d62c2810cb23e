"""Synthetic samples have the statistics of the given ones, and say that they are synthetic."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.distillation.augmentation.synthetic_samples import synthesize


def smooth_images(count, size=16):
    """Images of three correlated channels with low frequencies alone."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((count, 3, 4, 4)).repeat(size // 4, axis=2)
    images = coarse.repeat(size // 4, axis=3)
    images[:, 1] = 0.9 * images[:, 0] + 0.1 * images[:, 1]
    return (images * np.array([1, 1, 3]).reshape(3, 1, 1) + 5).astype(np.float32)


def make(samples, count=200, seed=0, axes=None, constants=()):
    return synthesize(samples, axes=axes or {}, constants=constants, count=count, seed=seed)


def test_images_have_the_mean_spread_and_smoothness_of_the_given_ones():
    images = smooth_images(50)
    made = make({"x": images}).values["x"]
    assert (made.shape, made.dtype) == ((200, 3, 16, 16), np.float32)
    np.testing.assert_allclose(made.mean(axis=(0, 2, 3)), images.mean(axis=(0, 2, 3)), atol=0.3)
    np.testing.assert_allclose(made.std(axis=(0, 2, 3)), images.std(axis=(0, 2, 3)), rtol=0.15)
    steps, given = (np.diff(x, axis=3).std() for x in (made, images))
    assert steps == pytest.approx(given, rel=0.2)
    assert np.corrcoef(made[:, 0].ravel(), made[:, 1].ravel())[0, 1] > 0.9
    assert images.min() <= made.min() <= made.max() <= images.max()


def test_a_single_image_suffices():
    made = make({"x": smooth_images(1)}, count=3).values["x"]
    assert np.isfinite(made).all()
    assert (made[0] != made[1]).any()


def test_tables_keep_the_relation_of_columns_and_their_categories():
    rng = np.random.default_rng(0)
    first = rng.standard_normal(100)
    noise = 0.3 * rng.standard_normal(100)
    table = np.stack([first, 100 * (first + noise), rng.integers(0, 2, 100)], axis=1)
    made = make({"x": table}).values["x"]
    assert np.corrcoef(made[:, 0], made[:, 1])[0, 1] > 0.85
    assert set(made[:, 2]) == {0, 1}


def test_tokens_are_drawn_where_samples_have_some():
    rng = np.random.default_rng(0)
    mask = (np.arange(40) < rng.integers(10, 40, (20, 1))).astype(np.int64)
    ids = rng.integers(200, 900, (20, 40)) * mask
    made = make({"ids": ids, "mask": mask}, count=30)
    assert made.values["ids"].shape == made.values["mask"].shape == (30, 40)
    np.testing.assert_array_equal(made.values["ids"] > 0, made.values["mask"] == 1)
    assert set(made.values["ids"].ravel()) <= set(ids.ravel())
    assert made.description == "30 synthetic samples: noise with the tokens of 20 given samples"


def test_the_description_says_that_samples_are_synthetic():
    text = make({"x": smooth_images(5)}, count=64).description
    assert text == (
        "64 synthetic samples: noise with the mean, spread and spectrum of 5 given samples"
    )


def test_constants_stay_and_the_seed_repeats_the_noise():
    batch = {"x": smooth_images(5), "state": np.arange(7)}
    first, again, other = (make(batch, seed=s, constants=["state"]).values for s in (1, 1, 2))
    np.testing.assert_array_equal(first["state"], batch["state"])
    np.testing.assert_array_equal(first["x"], again["x"])
    assert (first["x"] != other["x"]).any()


def test_inputs_along_another_axis_and_whole_inputs_are_made():
    images = smooth_images(5)
    moved = make({"x": np.moveaxis(images, 0, 1)}, count=4, axes={"x": 1}).values["x"]
    np.testing.assert_array_equal(np.moveaxis(moved, 1, 0), make({"x": images}, 4).values["x"])
    whole = make({"x": images[0]}, count=1, axes={"x": -1}).values["x"]
    assert whole.shape == images[0].shape
    assert (whole != images[0]).any()
