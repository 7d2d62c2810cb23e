"""Random changes fit the kind of each input, and the answers of the teacher."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from edgekit.compression.distillation.augmentation.augmentation import choose_augmentation


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def choose(batch, agree=lambda _: 1.0, axes=None, constants=()):
    return choose_augmentation(batch, axes=axes or {}, constants=constants, seed=0, agree=agree)


def change(batch, seed=0, **how):
    return choose(batch, **how).apply(batch, np.random.default_rng(seed))


def tokens(count=32, length=40):
    """Sentences of a start token, words, an end token and padding, with their masks."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, length, (count, 1))
    places = np.arange(length)
    ids = np.where(places < lengths, rng.integers(200, 900, (count, length)), 0)
    ids[:, 0], ids[places == lengths - 1] = 101, 102
    return {"ids": ids, "mask": (places < lengths).astype(np.int64), "types": np.zeros_like(ids)}


BATCHES = {
    "color images": {"x": normal(16, 3, 16, 20)},
    "bytes": {"x": np.random.default_rng(0).integers(0, 256, (16, 16, 20, 3), dtype=np.uint8)},
    "gray images": {"x": normal(16, 28, 28)},
    "one image": {"x": normal(1, 3, 16, 16)},
    "spectrograms": {"x": normal(16, 49, 10, 1)},
    "waveforms": {"x": normal(8, 4000)},
    "channels over time": {"x": normal(8, 128, 6).astype(np.float16)},
    "table": {"x": normal(32, 30).astype(np.float64)},
    "numbers": {"x": normal(32)},
    "five axes": {"x": normal(4, 5, 8, 8, 3)},
    "sentences": tokens(),
    "images and sentences": {"image": normal(32, 3, 16, 16), **tokens()},
    "nothing that changes": {"flag": np.zeros((4, 3), bool), "number": np.arange(4)},
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_shapes_dtypes_and_ranges_stay(batch):
    before = {name: array.copy() for name, array in batch.items()}
    changed = change(batch)
    assert list(changed) == list(batch)
    for name, array in changed.items():
        assert (array.shape, array.dtype) == (batch[name].shape, batch[name].dtype)
        assert array.min() >= batch[name].min()
        assert array.max() <= batch[name].max()
        np.testing.assert_array_equal(batch[name], before[name])


@pytest.mark.parametrize("batch", list(BATCHES.values())[:-1], ids=list(BATCHES)[:-1])
def test_changes_are_random_and_the_seed_repeats_them(batch):
    first, again, other = (change(batch, seed) for seed in (1, 1, 2))
    assert any((first[name] != batch[name]).any() for name in batch)
    assert any((first[name] != other[name]).any() for name in batch)
    for name in batch:
        np.testing.assert_array_equal(first[name], again[name])


def test_some_samples_stay_whole():
    images = normal(400, 3, 16, 16)
    whole = (change({"x": images})["x"] == images).all(axis=(1, 2, 3)).mean()
    assert 0.12 < whole < 0.3


def test_inputs_without_changes_are_described():
    assert choose(BATCHES["nothing that changes"]).description == "no changes"


def test_the_order_of_axes_makes_no_difference():
    images = normal(16, 3, 16, 16)
    last = change({"x": np.ascontiguousarray(images.transpose(0, 2, 3, 1))})["x"]
    np.testing.assert_allclose(last.transpose(0, 3, 1, 2), change({"x": images})["x"], atol=1e-5)
    inside = change({"x": np.ascontiguousarray(images.swapaxes(0, 1))}, axes={"x": 1})["x"]
    np.testing.assert_allclose(inside.swapaxes(0, 1), change({"x": images})["x"], atol=1e-5)


def test_a_sample_that_is_a_whole_input_changes():
    image = normal(3, 16, 16)
    changed = [change({"x": image}, seed, axes={"x": -1})["x"] for seed in range(5)]
    assert all(each.shape == image.shape for each in changed)
    assert any((each != image).any() for each in changed)


def test_constants_stay():
    batch = {"x": normal(8, 3, 16, 16), "state": normal(8, 20), "rate": np.float32(1)}
    changed = change(batch, constants=["state", "rate"])
    np.testing.assert_array_equal(changed["state"], batch["state"])
    assert changed["rate"] == 1


def test_changes_that_alter_the_answers_are_dropped():
    images = normal(64, 3, 16, 16)
    images[:, :, :, 8:] += 4 * np.random.default_rng(1).choice([-1, 1], (64, 1, 1, 1))

    def agree(batch):
        answers, before = (x[:, :, :, 8:].mean(axis=(1, 2, 3)) > 0 for x in (batch["x"], images))
        return float((answers == before).mean())

    augmentation = choose({"x": images}, agree)
    assert augmentation.dropped == ["horizontal flips"]
    assert augmentation.description == (
        "shifts, zoom, brightness, contrast, color, cutout, CutMix, mixup"
    )
    symmetric = choose({"x": images}, lambda batch: float(np.isfinite(batch["x"]).all()))
    assert symmetric.description.startswith("horizontal flips, shifts, ")


def test_changes_are_weaker_where_the_full_strength_alters_the_answers():
    table = normal(64, 10)

    def agree(batch):
        return float(np.abs(batch["x"] - table).max() < 0.5)

    kept, strict = choose({"x": table}, agree), choose({"x": table}, lambda _: 0.0)
    assert [(each.noun, each.strength) for each in kept.changes] == [("noise", 0.5), ("mixup", 1)]
    assert strict.description == "mixup"


def test_spectrograms_get_masks_and_no_flips():
    levels = normal(64, 49, 10) + np.linspace(0, 9, 10, dtype=np.float32)

    def agree(batch):
        return float((batch["x"][:, :, 9].mean(axis=1) > 4).mean())

    augmentation = choose({"x": levels}, agree)
    assert "flips" not in augmentation.description
    assert "masks along the first axis, masks along the second axis" in augmentation.description


def test_padding_special_tokens_and_masks_stay():
    batch = tokens()
    for given in (batch, {"ids": batch["ids"]}):
        changed = [change(given, seed) for seed in range(5)]
        words = batch["ids"] >= 200
        for each in changed:
            np.testing.assert_array_equal(each["ids"] >= 200, words)
            np.testing.assert_array_equal(each["ids"][~words], batch["ids"][~words])
            assert all((each[name] == given[name]).all() for name in given if name != "ids")
        share = np.mean([(each["ids"] != batch["ids"])[words].mean() for each in changed])
        assert 0.1 < share < 0.5


def test_positions_and_categories_stay():
    positions = np.broadcast_to(np.arange(40), (32, 40))
    categories = np.random.default_rng(0).integers(0, 5, (32, 6))
    batch = {**tokens(), "positions": positions, "categories": categories}
    changed = change(batch)
    np.testing.assert_array_equal(changed["positions"], positions)
    np.testing.assert_array_equal(changed["categories"], categories)


def test_noise_of_tables_follows_the_spread_of_columns():
    table = normal(64, 4).astype(np.float64) * [1, 1e3, 1e-3, 1]
    table[:, 3] = np.random.default_rng(0).integers(0, 9, 64)
    kept = choose({"x": table})
    noise = next(each for each in kept.changes if each.noun == "noise")
    moved = noise.apply_to_all({"x": table.copy()}, np.random.default_rng(0))["x"] - table
    np.testing.assert_allclose(moved.std(axis=0)[:3] / table.std(axis=0)[:3], 0.1, atol=0.06)
    assert not moved[:, 3].any()
    np.testing.assert_array_equal(change({"x": table})["x"][:, 3], table[:, 3])


def test_whole_numbers_stay_whole_and_flags_stay():
    counts = np.random.default_rng(0).integers(0, 100, (64, 5)).astype(np.float32)
    counts[:, 4] = counts[:, 4] > 50
    changed = change({"x": counts})["x"]
    assert (changed[:, :4] != counts[:, :4]).any()
    np.testing.assert_array_equal(changed, np.rint(changed))
    np.testing.assert_array_equal(changed[:, 4], counts[:, 4])


def test_missing_values_stay_missing():
    table = normal(64, 6)
    table[::3, 2], table[:, 5] = np.nan, np.nan
    missing = np.isnan(table)
    for seed in range(5):
        changed = change({"x": table}, seed)["x"]
        assert (changed != table)[~missing].any()
        assert np.isnan(changed[:, 5]).all()
        assert np.isfinite(changed[~missing]).all()


def test_a_single_sample_is_not_mixed():
    image = {"x": normal(1, 3, 16, 16)}
    mixtures = choose(image, lambda _: 0.0)
    assert mixtures.description == "CutMix, mixup"
    for seed in range(5):
        changed = mixtures.apply(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(changed["x"], image["x"])


def test_two_inputs_of_one_sample_are_mixed_alike():
    left = normal(16, 3, 16, 16)
    batch = {"left": left, "right": 2 * left}
    mixtures = choose(batch, lambda _: 0.0)
    changed = mixtures.apply(batch, np.random.default_rng(0))
    assert (changed["left"] != left).any()
    np.testing.assert_allclose(changed["right"], 2 * changed["left"], atol=1e-5)
    geometry = change(batch)
    assert (geometry["left"] != left).any()
    np.testing.assert_allclose(geometry["right"], 2 * geometry["left"], atol=0.01)


def test_samples_of_other_sizes_change():
    large, small = normal(16, 3, 32, 24), normal(4, 3, 16, 16, seed=1)
    changed = choose({"x": large}).apply({"x": small}, np.random.default_rng(0))["x"]
    assert changed.shape == small.shape
    assert (changed != small).any()
    wide, narrow = normal(16, 30), normal(16, 20)
    changed = choose({"x": wide}).apply({"x": narrow}, np.random.default_rng(0))["x"]
    assert (changed != narrow).any()


@pytest.mark.zoo
@pytest.mark.parametrize(
    ("name", "fits"), [("ic-resnet8", "horizontal flips, "), ("kws-dscnn", "shifts along the ")]
)
def test_real_models_tell_images_from_spectrograms(zoo, name, fits):
    session = ort.InferenceSession(zoo / name / "model.onnx")
    samples = np.load(zoo / name / "calib.npz")["x"][:64].astype(np.float32)
    key = session.get_inputs()[0].name

    def answer(batch):
        return session.run(None, dict(batch))[0].argmax(axis=-1)

    expected = answer({key: samples})
    augmentation = choose({key: samples}, lambda batch: float((answer(batch) == expected).mean()))
    assert augmentation.description.startswith(fits)
    assert augmentation.description.endswith("CutMix, mixup")
