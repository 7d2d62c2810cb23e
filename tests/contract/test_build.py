"""Files, output and exit codes of `edgekit build`, also repeated or interrupted."""

import json
import re
import shutil
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle.bundle_file import open_bundle
from tests.builders.projects import (
    PROFILE,
    assert_refused,
    copy_digits,
    edgekit,
    interrupt,
    listing,
    spawn,
)

pytestmark = pytest.mark.slow

STAGES_OF_THE_AGENT = re.compile(r"(score|timing)$", re.MULTILINE)


def test_a_build_folder_contains_all_promised_files(built):
    project, _ = built
    out = project / "build" / PROFILE
    assert {path.name for path in out.iterdir()} == {
        "model.onnx",
        "golden.npz",
        "manifest.json",
        "results.jsonl",
        "report.html",
        "edgekit.lock",
        f"{PROFILE}.edgekit",
    }
    open_bundle(out).check()
    open_bundle(out / f"{PROFILE}.edgekit").check()


def test_the_bundle_file_and_the_build_folder_are_the_same(built):
    out = built[0] / "build" / PROFILE
    file = open_bundle(out / f"{PROFILE}.edgekit")
    with zipfile.ZipFile(file.path) as archive:
        assert archive.namelist() == ["golden.npz", "manifest.json", "model.onnx.packed"]
        packed = archive.getinfo("model.onnx.packed").compress_size
    assert file.manifest_bytes == (out / "manifest.json").read_bytes()
    for name in ("golden.npz", "model.onnx"):
        assert file.read(name) == (out / name).read_bytes()
    model = file.manifest.file("model.onnx")
    assert (model.encoding, model.transfer_bytes) == ("packed", packed)
    assert packed < 0.9 * model.bytes


def test_the_manifest_lists_the_cost_of_every_storage_variant(built):
    out = built[0] / "build" / PROFILE
    manifest = open_bundle(out).manifest
    (variant,) = manifest.variants
    measured = manifest.measurements[0]
    assert variant.name == manifest.recipe["name"]
    assert variant.disk_bytes == (out / "model.onnx").stat().st_size
    assert variant.transfer_bytes == manifest.file("model.onnx").transfer_bytes
    assert variant.encoding == "packed"
    assert variant.peak_rss_bytes == measured["peak_rss_bytes"] > 1 << 20
    assert (variant.latency_p50_ms, variant.latency_p95_ms) == (
        measured["latency"]["p50_ms"],
        measured["latency"]["p95_ms"],
    )
    assert (variant.source, variant.chosen) == ("host", True)


def test_a_build_touches_nothing_but_its_own_folder(built, tmp_path):
    after = listing(built[0])
    for name, digest in listing(copy_digits(tmp_path / "digits")).items():
        assert after.pop(name) == digest
    assert {name.partition("/")[0] for name in after} == {"build"}


def test_a_build_says_in_json_what_it_found_and_nothing_else(built):
    project, done = built
    facts = json.loads(done.out)
    out = project / "build" / PROFILE
    chosen = next(c for c in facts["candidates"] if c["name"] == facts["chosen"])
    assert facts["passes"] is True
    assert facts["bundle"] == str(out)
    assert chosen["digest"] == open_bundle(out).manifest.file("model.onnx").digest
    assert STAGES_OF_THE_AGENT.search(done.err), "progress goes to stderr"


def test_the_lock_holds_what_the_bytes_depend_on(built):
    out = built[0] / "build" / PROFILE
    lock = json.loads((out / "edgekit.lock").read_text())
    manifest = json.loads((out / "manifest.json").read_text())
    assert lock["model"]["sha256"] == open_bundle(out).manifest.file("model.onnx").digest
    assert lock["source"]["sha256"] == manifest["source_digest"]
    assert {"evaluation", "calibration"} <= set(lock["data"])
    assert {"edgekit", "python", "seed"} <= set(lock)
    assert {"onnxruntime"} <= set(lock["tools"])
    assert all(step["settings"] is not None for step in lock["recipe"]["steps"])


def test_a_second_build_does_no_work_and_only_adds_to_the_results(built, workplace):
    project = copy_digits(workplace / "digits")
    out = project / "build" / PROFILE
    first = spawn("build", "-C", project)
    before = (out / "results.jsonl").read_bytes()
    model, lock = (out / "model.onnx").read_bytes(), (out / "edgekit.lock").read_bytes()
    again = spawn("build", "-C", project)
    after = (out / "results.jsonl").read_bytes()
    for done in (first, again):  # the shared cache holds all that the first would do
        assert done.code == 0
        assert not STAGES_OF_THE_AGENT.search(done.err), done.err
        assert done.cpu_s < 5
    assert after.startswith(before)
    assert len(after) > len(before)
    assert after.endswith(b"\n")
    assert (out / "model.onnx").read_bytes() == model
    assert (out / "edgekit.lock").read_bytes() == lock


def test_ctrl_c_ends_a_build_with_130_and_the_same_command_resumes(built, workplace):
    project = copy_digits(workplace / "digits")
    cache = workplace / "own-cache"
    arguments = ("build", "-C", project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(cache))
        broken = interrupt(*arguments, stage="int8-dynamic: score")
        assert broken.code == 130, broken.err
        assert broken.err.endswith("edgekit: interrupted; run the same command again to resume\n")
        assert "Traceback" not in broken.err
        assert broken.out == ""
        assert not (project / "build").exists()
        assert not list((cache / "scratch").iterdir())
        resumed = spawn(*arguments)
    assert resumed.code == 0, resumed.err
    assert "original: score" in broken.err
    assert "original: score" not in resumed.err
    assert "int8-static: histograms" not in resumed.err
    # Made with another cache, and in two goes: the same bytes.
    ours, theirs = (p / "build" / PROFILE for p in (project, built[0]))
    digests = [
        {
            (line["name"], line["model"]["digest"])
            for line in map(json.loads, (out / "results.jsonl").read_text().splitlines())
            if line["kind"] == "candidate"
        }
        for out in (ours, theirs)
    ]
    assert digests[0] == digests[1]


def test_a_build_from_another_cache_gives_the_same_bytes(built, digits):
    profile = write_tight_profile(digits, model_mib=0.12)  # that leaves no choice to the stopwatch
    assert spawn("build", "-C", digits, "--device", profile).code == 0
    other = spawn(
        "build",
        "-C",
        digits,
        "--device",
        profile,
        "--out",
        digits / "other",
        EDGEKIT_CACHE=digits.parent / "other-cache",
    )
    assert other.code == 0
    assert "histograms" in other.err, "it was made anew"
    for name in ("model.onnx", "golden.npz", "edgekit.lock"):
        same = (digits / "build" / PROFILE / name).read_bytes()
        assert (digits / "other" / name).read_bytes() == same


# ---------------------------------------------------------------- nothing holds


def write_tight_profile(folder, **limits):
    """Write the test profile with other limits."""
    text = edgekit("devices", "show", PROFILE).out
    for key, value in limits.items():
        text, count = re.subn(rf"^{key} *=.*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1, key
    path = folder / "tight.toml"
    path.write_text(text)
    return path.resolve()


def test_impossible_budgets_end_with_3_and_say_what_fails_by_how_much(built, digits):
    profile = write_tight_profile(digits, model_mib=0.005, transfer_mib=0.004)
    done = spawn("build", "-C", digits, "--device", profile)
    assert done.code == 3, done.err
    assert "no candidate meets the limits model_mib, transfer_mib; nearest is" in done.out
    assert re.search(r"nearest is (int8|low-bits)-", done.out)
    assert re.search(r"model_mib: fails, 0\.0\d+ of 0\.005, over by 0\.0\d+", done.out)
    assert re.search(r"transfer_mib: fails, 0\.0\d+ of 0\.004, over by 0\.0\d+", done.out)
    page = (digits / "build" / PROFILE / "report.html").read_text()
    (nearest,) = re.findall(r"nearest is (\S+)", done.out)
    (over,) = re.findall(r"transfer_mib: fails, .*(over by \S+)", done.out)
    assert re.search(rf"Nearest: .*<b>{nearest}</b>", page)
    assert over in page
    assert {p.name for p in (digits / "build" / PROFILE).iterdir()} == {
        "results.jsonl",
        "report.html",
    }


def write_hostile(project, limit):
    """Write a model that 8 bits ruin, as one input is much larger than the decisive ones."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(1000, 10)).astype(np.float32)
    weights[0] = 0
    x = rng.normal(size=(200, 1000)).astype(np.float32)
    x[:, 0] *= 10_000
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, project / "model.onnx")
    np.savez(project / "calib.npz", x=x[:40])
    np.savez(project / "eval.npz", x=x[40:], label=(x[40:] @ weights).argmax(1))
    return write_tight_profile(project, model_mib=limit)


def test_a_model_that_only_fits_by_losing_accuracy_ends_with_3(tiny):
    profile = write_hostile(tiny, limit=0.013)  # less than floats of 16 bits take
    done = spawn("build", "-C", tiny, "--device", profile, "--max-drop", "0", "--json")
    assert done.code == 3, done.err
    facts = json.loads(done.out)
    assert facts["bundle"] is None
    failing = {
        c["name"]: {k["name"] for k in c["verdict"]["checks"] if k["outcome"] == "fails"}
        for c in facts["candidates"]
    }
    assert failing.pop("original") == {"model_mib"}
    assert failing.pop("float16") == {"model_mib"}
    assert failing
    assert all(lines == {"accuracy_drop_points"} for lines in failing.values()), failing
    assert {p.name for p in (tiny / "build" / PROFILE).iterdir()} == {
        "results.jsonl",
        "report.html",
    }


def test_allow_failing_packs_the_nearest_and_the_bundle_says_that_it_fails(built, digits):
    profile = write_tight_profile(digits, model_mib=0.005)
    done = spawn("build", "-C", digits, "--device", profile, "--allow-failing", "--json")
    facts = json.loads(done.out)
    assert done.code == 3
    assert facts["passes"] is False
    assert facts["chosen"] is None
    bundle = open_bundle(digits / "build" / PROFILE)
    assert bundle.manifest.passes is False
    assert bundle.manifest.recipe["name"] == facts["nearest"]


def test_a_failed_build_notes_the_bundle_of_an_earlier_one(built, digits):
    assert spawn("build", "-C", digits).code == 0
    before = open_bundle(digits / "build" / PROFILE).manifest
    done = spawn("build", "-C", digits, "--device", write_tight_profile(digits, model_mib=0.005))
    assert done.code == 3
    assert "bundle:" not in done.out
    assert open_bundle(digits / "build" / PROFILE).manifest == before, "the old one is whole"


# ---------------------------------------------------------------- one recipe, no search


def test_a_recipe_by_hand_is_built_as_it_is_and_nothing_else(built, digits):
    steps = ("--step", "quantize-static:ranges=mse,max_samples=32")
    done = edgekit("build", "-C", digits, *steps, "--json")

    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert [c["name"] for c in facts["candidates"]] == ["original", "quantize-static"]
    assert facts["chosen"] == "quantize-static"
    recipe = open_bundle(digits / "build" / PROFILE).manifest.recipe
    assert [step["name"] for step in recipe["steps"]] == ["quantize-static"]
    assert recipe["steps"][0]["settings"]["ranges"] == "mse"
    for candidate in facts["candidates"]:
        measured = candidate["measurements"][0]
        assert measured["model_bytes"] > 0
        assert measured["transfer_bytes"] > 0
        assert measured["peak_rss_bytes"] > 0
        assert measured["latency"]["p95_ms"] > 0


def test_a_recipe_file_and_the_same_steps_make_the_same_bytes(tiny):
    (tiny / "r.toml").write_text(
        'name = "mine"\n[[step]]\npass = "clean"\n'
        '[[step]]\npass = "quantize-static"\nweight_bits = 8\n'
    )
    by_hand = ("--step", "clean", "--step", "quantize-static:weight_bits=8")
    found = []
    for how in (("--recipe", "r.toml"), by_hand):
        facts = json.loads(edgekit("build", "-C", tiny, "--json", *how).out)
        found.append({c["name"]: c["digest"] for c in facts["candidates"]})
    assert found[0].pop("mine") == found[1].pop("clean+quantize-static")


def test_a_recipe_that_fails_the_gate_ends_with_3_though_the_original_would_pass(tiny):
    write_hostile(tiny, limit=50)
    how = ("--step", "quantize-dynamic", "--max-drop", "0", "--json")
    done = edgekit("build", "-C", tiny, *how)

    assert done.code == 3, done.err
    facts = json.loads(done.out)
    assert (facts["chosen"], facts["nearest"]) == (None, "quantize-dynamic")
    assert not (tiny / "build" / PROFILE / "manifest.json").exists()


def test_a_recipe_that_ruins_the_outputs_is_not_a_candidate(tiny):
    write_hostile(tiny, limit=50)
    done = edgekit("build", "-C", tiny, "--step", "quantize-static")

    assert (done.code, done.out) == (1, "")
    assert "no longer follows the original's" in done.err
    assert not (tiny / "build").exists()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            ["--step", "quantize-weights:bits=9"],
            "--step quantize-weights: bits: must be a number from 1 to 8",
        ),
        (["--step", "quantize-static", "--step", "quantize-static"], "already quantized"),
        (["--recipe", "bad.toml"], "bad.toml: step 2: bits: must be a number from 1 to 8"),
    ],
)
def test_an_invalid_recipe_is_a_bad_request_and_writes_nothing(tiny, how, says):
    (tiny / "bad.toml").write_text(
        '[[step]]\npass = "clean"\n[[step]]\npass = "quantize-weights"\nbits = 9\n'
    )
    assert_refused("build", "-C", tiny, *how, says=says)
    assert not (tiny / "build").exists()


# ---------------------------------------------------------------- strict


def test_strict_fails_what_was_not_measured_and_packs_nothing(tiny):
    assert edgekit("build", "-C", tiny, "--max-drop", "50").code == 0
    shutil.rmtree(tiny / "build")
    done = edgekit("build", "-C", tiny, "--max-drop", "50", "--strict")

    assert done.code == 3, done.err
    assert "latency_p95_ms: not measured (limit 100); not measured on a device" in done.out
    assert done.out.count("(fails: --strict)") == 2
    assert not (tiny / "build" / PROFILE / "manifest.json").exists()
    assert "No candidate passes" in (tiny / "build" / PROFILE / "report.html").read_text()


def test_strict_fails_a_drop_that_is_not_proven(tiny):
    text = edgekit("devices", "show", PROFILE).out
    text = re.sub(r"^(peak_rss_mib|latency_p95_ms) *=.*\n", "", text, flags=re.MULTILINE)
    (tiny / "sizes.toml").write_text(text)
    how = ("build", "-C", tiny, "--device", "sizes.toml", "--step", "quantize-static", "--json")
    lax, strict = (edgekit(*how, *more) for more in ([], ["--strict"]))

    assert (lax.code, strict.code) == (0, 3)
    outcomes = [
        next(k["outcome"] for k in c["verdict"]["checks"] if k["name"] == "accuracy_drop_points")
        for c in json.loads(lax.out)["candidates"]
        if c["name"] == "quantize-static"
    ]
    assert outcomes == ["unproven"]
    assert json.loads(strict.out)["chosen"] is None
