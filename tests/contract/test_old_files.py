"""Bundles, build folders, devices and caches of version 0.1 (tests/old) are read and used."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle.bundle_file import open_bundle
from edgekit.pipeline.results_log import read_facts
from tests.builders.projects import assert_refused, assert_untouched, edgekit, listing

OLD = Path(__file__).parents[1] / "old"
PRESENT_STEPS = ["clean", "quantize-static"]

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="built for x86-64")


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A device on this machine with a home of its own, empty at first."""
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "device"))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    return tmp_path / "device"


def copy_old(name, target):
    shutil.copytree(OLD / name, target, symlinks=True)
    return target


def status():
    done = edgekit("status", "local", "--json")
    assert done.code == 0, done.err
    (facts,) = json.loads(done.out)
    return facts


@pytest.mark.parametrize("path", ["plain", "plain/tablet-x86.edgekit", "signed"])
def test_an_old_bundle_opens_under_the_present_names(path):
    bundle = open_bundle(OLD / path)
    bundle.check()
    assert bundle.manifest.golden_samples == "canaries.npz"
    assert [step["name"] for step in bundle.manifest.recipe["steps"]] == PRESENT_STEPS
    assert bundle.manifest.recipe["steps"][1]["settings"]["equalize"] is False
    assert [variant.chosen for variant in bundle.manifest.variants] == [True]


def test_the_results_of_an_old_build_are_read_under_the_present_names():
    facts = read_facts(OLD / "plain")
    (chosen,) = (line for line in facts.candidates if line.chosen)
    assert [step["name"] for step in chosen.steps] == PRESENT_STEPS
    assert "equalise" not in chosen.steps[1]["settings"]
    assert facts.manifest is not None


@pytest.mark.parametrize("path", ["plain", "plain/tablet-x86.edgekit"])
def test_an_old_bundle_is_installed_and_checked(device, path):
    with assert_untouched(OLD):
        done = edgekit("push", OLD / path, "local", "--watch", "0", "--json")
    assert done.code == 0, done.err
    (report,) = json.loads(done.out)
    assert report["health"]["healthy"]
    assert status()["current"]["name"] == report["release"]
    assert (device / "current" / "canaries.npz").is_file()


def test_an_old_bundle_is_measured_on_a_device(device, tmp_path):
    bundle = copy_old("plain", tmp_path / "plain")
    data = OLD / "project" / "eval.npz"
    done = edgekit("bench", bundle, "local", "--eval", data, "--json")
    assert done.code == 0, done.err
    assert '"n": 400' in done.out


def test_an_old_signed_bundle_is_taken_by_a_device_that_trusts_its_key(device):
    signature = json.loads((OLD / "signed" / "signature.json").read_text())
    assert edgekit("keys", "trust", "local", "--key", signature["key"]).code == 0
    done = edgekit("push", OLD / "signed", "local", "--watch", "0")
    assert done.code == 0, done.err
    assert status()["current"]["key"] == signature["key"]
    unsigned = edgekit("push", OLD / "plain", "local", "--watch", "0")
    assert unsigned.code == 4
    assert "not signed" in unsigned.err


def test_an_old_device_tells_what_it_serves_and_goes_back(device):
    copy_old("home", device)
    before = status()
    assert before["current"]["name"].startswith("1ff88eb9")
    assert before["current_model"]["recipe"] == "by hand"
    assert edgekit("rollback", "local").code == 0
    after = status()
    assert after["current"] == before["previous"]
    assert after["previous"]["name"] == before["current"]["name"]


def test_an_old_device_with_trusted_keys_still_trusts_them(device):
    copy_old("home-trusted", device)
    before = status()
    assert len(before["trust"]["keys"]) == 1
    done = edgekit("push", OLD / "plain", "local", "--watch", "0")
    assert done.code == 4
    assert "not signed" in done.err
    assert edgekit("push", OLD / "signed", "local", "--watch", "0").code == 0
    assert status()["current"]["name"] == before["current"]["name"]


def test_a_damaged_record_of_an_old_release_is_made_again_from_its_manifest(device):
    copy_old("home", device)
    served = status()["current"]["name"]
    (device / "releases" / served / "release.json").write_text("{")
    done = edgekit("push", OLD / "plain", "local", "--watch", "0")
    assert done.code == 0, done.err
    assert status()["current"]["golden_samples"] == "canaries.npz"


@pytest.fixture
def rebuilt(device, tmp_path):
    """The old project built again with the old cache and lock, beside the old device."""
    copy_old("home", device)
    copy_old("cache", tmp_path / "cache")
    (tmp_path / "config").mkdir()
    shutil.copy(OLD / "cache.key", tmp_path / "config" / "cache.key")
    project = copy_old("project", tmp_path / "project")
    (project / "edgekit.toml").write_text(
        (project / "edgekit.toml").read_text().partition("[release]")[0]
    )
    # A fifth of its evaluation samples are for calibration too, which was only noted then.
    seen = {row.tobytes() for row in np.load(project / "calib.npz")["x"]}
    arrays = dict(np.load(project / "eval.npz"))
    new = np.array([row.tobytes() not in seen for row in arrays["x"]])
    np.savez(project / "eval.npz", **{name: rows[new] for name, rows in arrays.items()})
    out = copy_old("plain", tmp_path / "plain")
    done = edgekit(
        "build", "-C", project, "--recipe", project / "recipe.toml", "--out", out,
        "--max-drop", "5", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    return out, done


def test_a_project_is_built_again_with_the_old_cache_and_lock_and_pushed(rebuilt, device):
    out, done = rebuilt
    assert sum("is now" in line for line in done.err.splitlines()) == 1
    assert '"quantize"' not in done.out
    assert not (out / "canaries.npz").exists()
    lock = json.loads((out / "edgekit.lock").read_text())
    assert [step["name"] for step in lock["recipe"]["steps"]] == PRESENT_STEPS
    manifest = open_bundle(out).manifest
    assert manifest.golden_samples == "golden.npz"
    assert len((out / "results.jsonl").read_text().splitlines()) > len(
        (OLD / "plain" / "results.jsonl").read_text().splitlines()
    )

    was = status()["current"]["name"]
    pushed = edgekit("push", out, "local", "--watch", "0")
    assert pushed.code == 0, pushed.err
    assert status()["previous"]["name"] == was
    assert (device / "current" / "golden.npz").is_file()
    assert edgekit("rollback", "local").code == 0
    assert status()["current"]["name"] == was

    assert edgekit("cache", "--clear").code == 0
    kept = [name for name in listing(out.parent / "cache") if name.endswith(".json")]
    assert not kept


def test_a_bundle_of_a_later_edgekit_is_refused_in_one_line(device, tmp_path):
    bundle = copy_old("plain", tmp_path / "plain")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest |= {"schema_version": 3, "wonders": True}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert_refused("push", bundle, "local", says="upgrade edgekit on this machine")
