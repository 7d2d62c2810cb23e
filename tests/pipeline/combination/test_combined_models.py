"""Builds of a [pipeline]: two models, a function that combines them, one metric of both."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import edgekit as product
from edgekit.bundle.bundle_file import open_bundle
from edgekit.cli.render.pipeline import format_pipeline
from edgekit.conversion.open_model import read_model
from edgekit.data.lengths import iter_own_rows
from edgekit.pipeline.combination.inputs import make_part_inputs, read_combined_inputs
from edgekit.pipeline.request import Request
from tests.builders.projects import PROFILE, edgekit
from tests.builders.tiny import model, proto
from tests.pipeline.combination.digit_scenes import CODE, SETTINGS, write_project

INT8 = "quantize-static"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(cache))
    return write_project(tmp_path / "scenes")


class Runner:
    """A model run by onnxruntime alone, as the function of the project calls models."""

    def __init__(self, path):
        self._session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs):
        names = [each.name for each in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def count_correct(folder, files):
    """Count the digits that the function of the project reads correctly with these files."""
    spec = importlib.util.spec_from_file_location("reading_by_hand", folder / "reading.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    models = {name: Runner(path) for name, path in files.items()}
    with np.load(folder / "eval.npz") as data:
        scenes, labels = data["scene"], data["y"]
    found = [module.run(models, {"scene": scene})["scores"].argmax() for scene in scenes]
    return int((np.array(found) == labels).sum())


def test_accuracy_is_that_of_all_compressed_models_together(project):
    outcome = product.build_pipeline(folder=project, steps=["clean", INT8], runtime="onnxruntime")

    originals = {"locator": project / "locator.onnx", "reader": project / "reader.onnx"}
    packed = {name: each.folder / "model.onnx" for name, each in outcome.models.items()}
    assert outcome.passes
    assert all(read_model(packed[n]).bytes != read_model(originals[n]).bytes for n in packed)
    comparison = outcome.comparison
    assert round(comparison.before * comparison.n) == count_correct(project, originals)
    assert round(comparison.after * comparison.n) == count_correct(project, packed)


def test_models_are_calibrated_on_what_they_get(project):
    outcome = product.build_pipeline(folder=project, steps=["clean", INT8], runtime="onnxruntime")

    reader = outcome.models["reader"].inputs
    assert reader.part.calls == 1
    rows = np.fromfile(reader.calibration.samples.columns[0].path, np.float32).reshape(-1, 8, 8)
    with np.load(project / "calib.npz") as data:
        scenes = data["scene"]
    assert len(rows) == len(scenes)
    windows = np.lib.stride_tricks.sliding_window_view(scenes[0, 0], (8, 8)).reshape(-1, 8, 8)
    assert (windows == rows[0]).all(axis=(1, 2)).any()


def test_a_model_that_loses_too_much_fails_and_the_loss_is_that_against_all_originals(project):
    outcome = product.build_pipeline(
        folder=project, steps=["prune-weights:sparsity=0.95"], runtime="onnxruntime"
    )

    locator, reader = outcome.models.values()
    assert not outcome.passes
    assert reader.choice is None
    assert not (reader.folder / "manifest.json").exists()
    originals = {"locator": project / "locator.onnx", "reader": project / "reader.onnx"}
    packed = {
        "locator": locator.folder / "model.onnx" if locator.choice else originals["locator"],
        "reader": reader.found.nearest.model.path,
    }
    comparison = outcome.comparison
    assert comparison.drop > comparison.margin
    assert round(comparison.before * comparison.n) == count_correct(project, originals)
    assert round(comparison.after * comparison.n) == count_correct(project, packed)


def test_the_command_reports_each_model_and_all_together(project, capfd):
    prints = '    print("one")\n    os.system("echo two")\n    heat ='
    (project / "reading.py").write_text(f"import os\n{CODE.replace('    heat =', prints)}")

    done = edgekit("build", "-C", project, "--step", "clean", "--json")

    assert done.code == 0, done.err
    facts = json.loads(done.out)  # what the function prints is not in it
    assert capfd.readouterr().out == ""
    assert facts["passes"]
    assert facts["comparison"]["interval"] == [0, 0]  # both files are the originals
    assert list(facts["builds"]) == ["locator", "reader"]
    out = project / "build" / "tablet-x86"
    saved = json.loads((out / "pipeline.json").read_text())
    assert saved["models"]["reader"]["runs_per_sample"] == 1
    sizes = {c["name"]: c["measured"] for c in saved["checks"]}
    total = sum((out / name / "model.onnx").stat().st_size for name in saved["models"])
    assert sizes["model_mib"] == pytest.approx(total / 2**20)
    for command in (("report", out), ("push", out, "local"), ("bench", out, "local")):
        mistake = edgekit(*command)
        assert mistake.code == 2
        assert f"give {out / 'locator'} or {out / 'reader'}" in mistake.err
    for name in saved["models"]:
        assert open_bundle(out / name).manifest.provenance["pipeline"]["model"] == name
        assert (out / name / "report.html").exists()


def test_the_sum_of_all_models_must_keep_the_budget(project):
    profile = product.DeviceProfile.load("tablet-x86")
    size = (project / "reader.onnx").stat().st_size / 2**20
    tight = profile.model_copy(
        update={"budget": profile.budget.model_copy(update={"model_mib": size + 1e-4})}
    )

    outcome = product.build_pipeline(
        folder=project, device=tight, steps=["clean"], runtime="onnxruntime"
    )

    assert all(each.choice for each in outcome.models.values())  # each alone is small enough
    assert not outcome.passes
    assert "model_mib: fails" in format_pipeline(outcome)


def test_latency_and_memory_of_a_device_are_summed(project):
    outcome = product.build_pipeline(
        folder=project, steps=["clean"], runtime="onnxruntime", on="local"
    )

    checks = {check.name: check for check in outcome.checks}
    assert checks["latency_p95_ms"].outcome == "holds"
    devices = [o.choice.measurements[-1] for o in outcome.models.values()]
    assert checks["latency_p95_ms"].measured == pytest.approx(
        sum(each.times.p95_ms for each in devices)
    )
    assert checks["peak_rss_mib"].measured == pytest.approx(
        sum(each.peak_rss_bytes for each in devices) / 2**20
    )


def test_the_function_runs_on_the_device_if_it_may(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    (project / "geometry.py").write_text("OFFSET = 2\n")
    (project / "reading.py").write_text(
        CODE.replace("import numpy as np", "import geometry\nimport numpy as np").replace(
            "row + 2 :", "row + geometry.OFFSET :"
        )
    )
    settings = SETTINGS.replace("[pipeline]\n", "[pipeline]\non_device = true\n")
    (project / "edgekit.toml").write_text(settings)

    outcome = product.build_pipeline(
        folder=project, steps=["clean", INT8], runtime="onnxruntime", on="local"
    )

    packed = {name: each.folder / "model.onnx" for name, each in outcome.models.items()}
    device = outcome.models["reader"].choice.measurements[-1]
    assert device.source == "device:local"
    assert device.scores[0].correct == count_correct(project, packed)


def test_without_labels_the_outputs_of_all_originals_are_the_target(project):
    with np.load(project / "eval.npz") as data:
        np.savez(project / "eval.npz", scene=data["scene"])
    settings = SETTINGS.replace('metric = "top1"\n', "")
    (project / "edgekit.toml").write_text(settings)

    outcome = product.build_pipeline(folder=project, steps=["clean", INT8], runtime="onnxruntime")

    assert outcome.comparison.metric == "agreement"
    assert outcome.comparison.before == 1
    assert outcome.comparison.after > 0.97


def test_a_model_may_get_inputs_of_different_sizes(tmp_path, cache, monkeypatch):
    """A model of free width reads strips, each as wide as its sample says."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(cache))
    kernel = np.random.default_rng(0).normal(0, 1, (8, 1, 3, 3)).astype(np.float32)
    strip = model(
        tmp_path,
        "g (float[N,1,8,W] strip) => (float[N,8] features) "
        "{ c = Conv<pads=[1,1,1,1]>(strip, k) r = Relu(c) p = GlobalAveragePool(r) "
        "features = Flatten(p) }",
        weights={"k": kernel},
    )
    head = model(
        tmp_path,
        "g (float[N,8] features) => (float[N,3] scores) { scores = MatMul(features, w) }",
        weights={"w": np.random.default_rng(1).normal(0, 1, (8, 3)).astype(np.float32)},
    )
    random = np.random.default_rng(2)
    widths = random.integers(4, 21, 60)
    strips = random.normal(0, 1, (60, 1, 8, 20)).astype(np.float32)
    for name in ("calib.npz", "eval.npz"):
        np.savez(tmp_path / name, strip=strips + (name == "calib.npz"), width=widths)
    (tmp_path / "strips.py").write_text(
        "def run(models, sample):\n"
        "    cut = sample['strip'][None, :, :, : int(sample['width'])]\n"
        "    return models['head'](features=models['strip'](strip=cut)['features'])\n"
    )
    (tmp_path / "edgekit.toml").write_text(
        '[pipeline]\nrun = "strips:run"\ninputs = ["strip", "width"]\n'
        f'[pipeline.models.strip]\npath = "{strip.path.name}"\n'
        f'[pipeline.models.head]\npath = "{head.path.name}"\n'
        '[data]\ncalibration = "calib.npz"\nevaluation = "eval.npz"\nmetric = "output-rms"\n'
        f'[build]\ndevice = "{PROFILE}"\n[gate]\nmax_drop = 50.0\n'
    )

    outcome = product.build_pipeline(folder=tmp_path, max_drop=50.0)

    inputs = outcome.models["strip"].inputs
    rows = list(iter_own_rows(inputs.calibration.samples.columns, inputs.calibration.samples))
    assert [row["strip"].shape[-1] for row in rows] == widths.tolist()
    assert np.array_equal(rows[5]["strip"], strips[5, :, :, : widths[5]] + 1)
    assert all(c.model.format == "onnx" for c in outcome.models["strip"].candidates)
    assert any("quantize-static" in str(c.recipe) for c in outcome.models["strip"].candidates)


BROKEN = {
    "raises an error": ('raise ValueError("no mark")', "ValueError: no mark (reading.py, line 5)"),
    "returns nothing": ("return None", "instead of the outputs by name"),
    "returns text": ('return {"scores": "abc"}', "output 'scores' is not an array of numbers"),
    "an unknown model": ('return models["reder"]()', "there is no model 'reder', only locator"),
    "an unknown input": ('return models["reader"](x=1)', "called with the inputs x, but it has im"),
    "a wrong shape": ('return models["reader"](image=sample["scene"])', "model reader: onnxruntim"),
    "a model that never runs": ('return {"scores": sample["scene"]}', "locator is not run on any"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_mistakes_of_the_function_are_named(project, case):
    body, message = BROKEN[case]
    (project / "reading.py").write_text(f"{CODE[: CODE.index('    heat')]}    {body}\n")

    done = edgekit("build", "-C", project, "--step", "clean")

    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (project / "build").exists()


WRONG_SETTINGS = {
    "a model as well": ("[pipeline]", '[model]\npath = "reader.onnx"\n[pipeline]', "exclude each"),
    "no metric": ('metric = "top1"\n', "", "data.metric: missing"),
    "no path": ('path = "locator.onnx"\n', "", "pipeline.models.locator.path: missing"),
    "no samples": ('evaluation = "eval.npz"\n', "", "no evaluation data"),
    "another array": ("[pipeline]", '[pipeline]\ninputs = ["sceme"]', "did you mean 'scene'"),
    "no function": ("reading:run", "reading:read", "reading has no 'read'"),
    "an input that a later model lacks": (
        "[data]",
        "[pipeline.models.reader.inputs.imag]\nconstant = 1\n[data]",
        "reader: edgekit.toml: pipeline.models.reader.inputs.imag: the model has no input 'imag'",
    ),
    "no models": (
        SETTINGS[SETTINGS.index("[pipeline.models.locator]") : SETTINGS.index("[data]")],
        "models = {}\n",
        "pipeline.models: must have at least 1 entry",
    ),
    "a bad name": (
        "[pipeline.models.reader]",
        '[pipeline.models."../reader"]',
        "../reader: must match the regular expression",
    ),
    "a file as the function": ("reading:run", "reading.py", "give reading:FUNCTION"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_mistakes_of_the_settings_are_named(project, case):
    old, new, message = WRONG_SETTINGS[case]
    (project / "edgekit.toml").write_text(SETTINGS.replace(old, new))

    done = edgekit("build", "-C", project, "--step", "clean")

    assert done.code == 2
    assert message in done.err
    assert not (project / "build").exists()


def test_an_interrupted_build_leaves_no_result_of_earlier_models(project):
    result = project / "build" / "tablet-x86" / "pipeline.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")

    def interrupt(what, done, total):
        if what.startswith("locator: "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        product.build_pipeline(folder=project, steps=["clean"], progress=interrupt)

    assert not result.exists()


def test_a_model_that_gets_nothing_from_a_compressed_one_is_calibrated_as_the_original(project):
    """A locator that finds nothing in the calibration samples must not end the build."""
    found = '    if heat.max() < 1:\n        return {"scores": np.zeros(10)}\n    row,'
    (project / "reading.py").write_text(CODE.replace("    row,", found))
    given = read_combined_inputs(Request(folder=project), lambda *_: None)
    blank = proto(
        "g (float[N,1,24,24] scene) => (float[N,1,24,24] heat) { heat = Sub(scene, scene) }"
    )
    onnx.save(blank, project / "blank.onnx")
    compressed = given.combined.with_model("locator", read_model(project / "blank.onnx"))

    reader = make_part_inputs(given, "reader", compressed, None, lambda *_: None)

    assert reader.calibration.count == 200
    assert "calibrated on what the originals give it" in reader.calibration.notes[-1]


def test_arrays_that_no_model_takes_are_given_as_they_are_and_a_model_may_run_twice(project):
    """Crops are cut from the photo at its full size, which only the function sees."""
    twice = CODE.replace(
        "    return", '    models["reader"](image=digit[None, :, :, ::-1])\n    return'
    )
    for name in ("calib.npz", "eval.npz"):
        with np.load(project / name) as data:
            photo = np.kron(data["scene"], np.ones((1, 1, 2, 2), np.float32)).astype(np.uint8)
            labels = {"y": data["y"]} if "y" in data else {}
        np.savez(project / name, photo=photo, **labels)
    (project / "reading.py").write_text(
        twice.replace(
            "    heat",
            '    assert sample["photo"].dtype == np.uint8\n'
            '    assert sample["photo"].shape == (1, 48, 48)\n'
            '    sample = {"scene": sample["photo"][:, ::2, ::2].astype(np.float32)}\n    heat',
        )
    )
    settings = SETTINGS.replace("[pipeline]\n", '[pipeline]\ninputs = ["photo"]\n')
    (project / "edgekit.toml").write_text(settings)

    outcome = product.build_pipeline(folder=project, steps=["clean"], runtime="onnxruntime")

    assert outcome.passes
    assert outcome.comparison.before > 0.9
    assert outcome.models["reader"].inputs.part.calls == 2
    assert outcome.models["reader"].inputs.calibration.count == 400


def test_a_bundle_of_one_of_the_models_has_no_metric_of_its_own(project):
    product.build_pipeline(folder=project, steps=["clean"], runtime="onnxruntime")
    bundle = project / "build" / "tablet-x86" / "reader"

    assert edgekit("bench", bundle, "local").code == 0
    done = edgekit("bench", bundle, "local", "--eval", project / "eval.npz")

    assert done.code == 2
    assert "one of several of a [pipeline]" in done.err


def test_a_device_states_the_accuracy_of_all_models_for_the_release_of_one(project, tmp_path):
    product.build_pipeline(folder=project, steps=["clean"], runtime="onnxruntime")
    home = tmp_path / "home"

    pushed = edgekit(
        "push", project / "build" / "tablet-x86" / "reader", "local", "--home", home, "--watch", "0"
    )
    status = edgekit("status", "local", "--home", home)

    assert pushed.code == 0, pushed.err
    assert "(top1, host, drop +0.00 points)" in status.out


def test_a_changed_function_is_measured_again(project):
    first = product.build_pipeline(folder=project, steps=["clean"], runtime="onnxruntime")
    (project / "reading.py").write_text(CODE.replace('["logits"][0]}', '["logits"][0][::-1]}'))
    second = product.build_pipeline(
        folder=project, steps=["clean"], runtime="onnxruntime", allow_failing=True
    )

    assert first.comparison.before > 0.9
    assert second.models["locator"].candidates[0].measurements[0].scores[0].value < 0.5
