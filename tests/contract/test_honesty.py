"""Notes and refusals of a build that prevent a misleading result."""

import json
import platform

import numpy as np
import pytest

from edgekit.config.profile import read_profile_text
from edgekit.config.project import FILE_NAME
from tests.builders.projects import assert_refused, edgekit, spawn, write_tiny

pytestmark = pytest.mark.slow

OTHER = {"x86_64": "tablet", "aarch64": "tablet-x86"}


def facts(*arguments):
    done = spawn(*arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_machine_of_another_architecture_measures_nothing_for_a_device(tiny):
    done = edgekit("build", "-C", tiny, "--device", OTHER[platform.machine()], "--on", "local")
    assert done.code == 4
    assert "wrong architecture" in done.err
    assert not (tiny / "build").exists()


def test_the_same_samples_for_calibration_and_evaluation_are_noticed(digits):
    assert_refused(
        "build", "-C", digits, "--data", "eval.npz",
        says="797 of 797 samples of eval.npz are in eval.npz too",
    )  # fmt: skip


def test_samples_shared_by_chance_in_a_table_of_few_distinct_rows_are_told(tmp_path):
    rng = np.random.default_rng(8)
    folder = write_tiny(tmp_path)
    for name in ("calib", "eval"):
        x = rng.integers(0, 3, (200, 4)).astype(np.float32)
        label = x[:, :3].argmax(axis=1)
        np.savez(folder / f"{name}.npz", x=x, label=label)

    built = edgekit("build", "-C", folder, "--step", "clean", "--allow-failing")

    assert built.code in (0, 3), built.err
    assert "are in calib.npz too, as is to be expected of data in which samples repeat" in built.out


def test_an_original_that_is_no_better_than_guessing_is_noticed(digits):
    arrays = dict(np.load(digits / "eval.npz"))
    arrays["y"] = np.roll(arrays["y"], 1)
    np.savez(digits / "eval.npz", **arrays)
    with (digits / FILE_NAME).open("a") as file:
        file.write("\n[data.preprocess]\nscale = 0.0\n")
    built = edgekit("build", "-C", digits, "--json")
    assert built.code == 3, built
    (original,) = json.loads(built.out)["candidates"]
    (check,) = (c for c in original["verdict"]["checks"] if c["metric"])
    assert check["outcome"] == "meaningless"
    assert "a predictor that ignores its input reaches" in check["note"]


def test_bytes_that_are_fed_to_floats_unscaled_are_noticed(digits):
    for split in ("calib", "eval"):
        arrays = dict(np.load(digits / f"{split}.npz"))
        name = next(n for n in arrays if n != "y")
        arrays[name] = arrays[name].astype(np.uint8)
        np.savez(digits / f"{split}.npz", **arrays)
    built = facts("build", "-C", digits)
    assert (
        sum("uint8 and is fed to a float32 input without scaling" in n for n in built["notes"]) == 2
    )


def test_few_samples_prove_nothing_and_the_line_says_how_many_could(digits):
    arrays = {name: values[:60] for name, values in np.load(digits / "eval.npz").items()}
    np.savez(digits / "few.npz", **arrays)
    built = facts("build", "-C", digits, "--eval", "few.npz")
    chosen = next(c for c in built["candidates"] if c["name"] != "original")
    check = next(c for c in chosen["verdict"]["checks"] if c["name"] == "accuracy_drop_points")
    assert check["outcome"] == "unproven"
    assert chosen["comparison"]["needed_samples"] > 60
    (digits / FILE_NAME).write_text(
        (digits / FILE_NAME).read_text() + "\n[gate]\nrequire_proof = true\n"
    )
    strict = facts("build", "-C", digits, "--eval", "few.npz")
    assert strict["chosen"] == "original", "the original needs no proof against itself"


def test_a_failed_build_says_that_an_older_bundle_is_still_there(built, digits):
    profile = digits / "tight.toml"
    text = read_profile_text("tablet-x86").replace("model_mib = 50", "model_mib = 0.001")
    assert "0.001" in text
    facts("build", "-C", digits)
    profile.write_text(text)
    done = edgekit("build", "-C", digits, "--device", "tight.toml")
    assert done.code == 3
    assert "still contains the bundle of an earlier build" in done.out


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_decoded_to_the_channels_that_the_model_looks_at(workplace, channels):
    onnx = pytest.importorskip("onnx")
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"g (float[N,{channels},8,8] x) => (float[N,{channels}] y) "
        "{ p = GlobalAveragePool(x) y = Flatten(p) }"
    )
    onnx.save(made, workplace / "model.onnx")
    for name in ("calib", "eval"):
        for label in range(max(channels, 2)):
            folder = workplace / name / str(label)
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 60, (8, 8, 3), np.uint8)
                bright = label if channels == 3 else slice(3 * label)  # one channel, or all
                pixels[..., bright] += 190
                image.fromarray(pixels).save(folder / f"{i}.png")
    (workplace / FILE_NAME).write_text(
        '[model]\npath = "model.onnx"\n[data]\ncalibration = "calib"\nevaluation = "eval"\n'
        '[data.preprocess]\nmean = 127.5\nstd = 127.5\nlayout = "NCHW"\n'
    )
    done = spawn("build", "--device", "tablet-x86", "--runtime", "onnxruntime", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["chosen"] == "original"
