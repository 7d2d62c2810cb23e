"""What `edgekit build` leaves behind, says, and does when it is run again or interrupted."""

import json
import re
import zipfile

import pytest

from edgekit.bundle import open_bundle
from tests.projects import DIGITS, PROFILE, copy_digits, edgekit, interrupted, listing, spawned

STAGES_OF_THE_AGENT = re.compile(r"(score|timing)$", re.MULTILINE)


def test_a_build_folder_holds_all_that_is_promised(built):
    project, _ = built
    out = project / "build" / PROFILE
    assert {path.name for path in out.iterdir()} == {
        "model.onnx",
        "canaries.npz",
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
    with zipfile.ZipFile(out / f"{PROFILE}.edgekit") as archive:
        assert archive.namelist() == ["canaries.npz", "manifest.json", "model.onnx"]
        for name in archive.namelist():
            assert archive.read(name) == (out / name).read_bytes()


def test_a_build_touches_nothing_but_its_own_folder(built):
    before, after = listing(DIGITS), listing(built[0])
    own = {name: digest for name, digest in before.items() if not name.startswith("__pycache__")}
    assert {k: v for k, v in after.items() if not k.startswith("build")} == own


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
    first = spawned("build", "-C", project)
    before = (out / "results.jsonl").read_bytes()
    model, lock = (out / "model.onnx").read_bytes(), (out / "edgekit.lock").read_bytes()
    again = spawned("build", "-C", project)
    after = (out / "results.jsonl").read_bytes()
    for done in (first, again):  # the shared cache holds all that the first would do
        assert done.code == 0
        assert not STAGES_OF_THE_AGENT.search(done.err), done.err
        assert done.seconds < 5
    assert after.startswith(before)
    assert len(after) > len(before)
    assert after.endswith(b"\n")
    assert (out / "model.onnx").read_bytes() == model
    assert (out / "edgekit.lock").read_bytes() == lock


def test_ctrl_c_ends_a_build_with_130_and_the_same_command_goes_on(built, workplace):
    project = copy_digits(workplace / "digits")
    cache = workplace / "own-cache"
    arguments = ("build", "-C", project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(cache))
        broken = interrupted(*arguments, stage="int8-dynamic: score")
        assert broken.code == 130, broken.err
        assert broken.err.endswith("edgekit: interrupted; the same command goes on from here\n")
        assert "Traceback" not in broken.err
        assert broken.out == ""
        assert not (project / "build").exists()
        assert not list((cache / "scratch").iterdir())
        resumed = spawned(*arguments)
    assert resumed.code == 0, resumed.err
    assert "original: score" in broken.err
    assert "original: score" not in resumed.err
    assert "int8-static-percentile: histograms" not in resumed.err
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


def test_a_build_from_another_cache_gives_the_same_bytes(built, workplace):
    project = copy_digits(workplace / "digits")
    recipe = json.loads((built[0] / "build" / PROFILE / "edgekit.lock").read_text())["recipe"]
    done = spawned("build", "-C", project, "--json", EDGEKIT_CACHE=workplace / "other-cache")
    assert done.code == 0
    ours, theirs = (p / "build" / PROFILE for p in (project, built[0]))
    if json.loads(done.out)["chosen"] != recipe["name"]:
        pytest.skip("two recipes are equally fast here, and another one won this time")
    assert (ours / "model.onnx").read_bytes() == (theirs / "model.onnx").read_bytes()
    assert (ours / "canaries.npz").read_bytes() == (theirs / "canaries.npz").read_bytes()


# ---------------------------------------------------------------- nothing holds


def tight(folder, **limits):
    """The test profile with other limits."""
    text = edgekit("devices", "show", PROFILE).out
    for key, value in limits.items():
        text, count = re.subn(rf"^{key} *=.*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1, key
    path = folder / "tight.toml"
    path.write_text(text)
    return path.resolve()


def test_impossible_budgets_end_with_3_and_say_what_fails_by_how_much(built, digits):
    profile = tight(digits, model_mib=0.005, transfer_mib=0.004)
    done = spawned("build", "-C", digits, "--device", profile)
    assert done.code == 3, done.err
    assert "nothing holds; nearest is int8-static-percentile" in done.out
    assert re.search(r"model_mib: fails, 0\.0\d+ of 0\.005, over by 0\.0\d+", done.out)
    assert re.search(r"transfer_mib: fails, 0\.0\d+ of 0\.004, over by 0\.0\d+", done.out)
    assert {p.name for p in (digits / "build" / PROFILE).iterdir()} == {
        "results.jsonl",
        "report.html",
    }


def test_allow_failing_packs_the_nearest_and_the_bundle_says_that_it_fails(built, digits):
    profile = tight(digits, model_mib=0.005)
    done = spawned("build", "-C", digits, "--device", profile, "--allow-failing", "--json")
    facts = json.loads(done.out)
    assert done.code == 3
    assert facts["passes"] is False
    assert facts["chosen"] is None
    bundle = open_bundle(digits / "build" / PROFILE)
    assert bundle.manifest.passes is False
    assert bundle.manifest.recipe["name"] == facts["nearest"]


def test_a_build_that_fails_leaves_no_bundle_of_an_earlier_one_behind_unsaid(built, digits):
    assert spawned("build", "-C", digits).code == 0
    before = open_bundle(digits / "build" / PROFILE).manifest
    done = spawned("build", "-C", digits, "--device", tight(digits, model_mib=0.005))
    assert done.code == 3
    assert "bundle:" not in done.out
    assert open_bundle(digits / "build" / PROFILE).manifest == before, "the old one is whole"
