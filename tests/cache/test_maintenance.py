"""The cache is measured, pruned by age and cleared; files of others are not touched."""

import json
import os
import subprocess
import sys
import time

import pytest

from edgekit.cache.maintenance import clear, measure_usage, parse_age, prune
from edgekit.cache.store import Store
from edgekit.errors import UserError
from tests.builders.projects import edgekit

DAY_S = 86400


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "cache")


def put(store, data):
    with store.scratch() as scratch:
        (scratch / "file").write_bytes(data)
        return store.put(scratch / "file")


def fill(store):
    """Write two models, two results, decoded data, a wheel and the remains of a killed build."""
    store.remember("tallies", "ab12", {"n": 1})
    store.remember("unfinished-tallies", "ab12", {"n": 1})
    columns = store.root / "columns" / ("0" * 64)
    (store.root / "wheels").mkdir()
    (store.root / "scratch" / "tmpabc").mkdir(parents=True)
    columns.mkdir(parents=True)
    (columns / "x.npy").write_bytes(bytes(1000))
    (store.root / "wheels" / "numpy-2.0-cp311.whl").write_bytes(bytes(50))
    (store.root / "web-runtime").mkdir()
    (store.root / "web-runtime" / "onnxruntime-web-1.30.0.tgz").write_bytes(bytes(60))
    (store.root / "scratch" / "tmpabc" / "half").write_bytes(bytes(70))
    checkpoints = store.root / "checkpoints" / ("2" * 64)
    checkpoints.mkdir(parents=True)
    (checkpoints / "step.npz").write_bytes(bytes(80))
    return put(store, b"one"), put(store, b"other")


def age(path, days):
    then = time.time() - days * DAY_S
    for each in [path, *path.rglob("*")]:
        os.utime(each, (then, then))


def test_every_kind_is_counted(store):
    fill(store)
    found = {s.name: (s.entries, s.bytes) for s in measure_usage().sections}
    assert found["models"] == (2, 8)
    assert found["figures"][0] == 2
    assert found["data"] == (1, 1000)
    assert found["wheels"] == (1, 50)
    assert found["web runtimes"] == (1, 60)
    assert found["unfinished"] == (1, 70)
    assert found["checkpoints"] == (1, 80)
    total = sum(bytes for _, bytes in found.values())
    assert measure_usage().bytes == total
    said = edgekit("cache", "--json")
    assert json.loads(said.out)["bytes"] == total
    assert edgekit("cache", "--size").out == f"{total / 1024:.1f} KiB\n"
    assert "figures" in edgekit("cache").out


def test_clear_removes_all_entries_and_keeps_other_files(store, tmp_path):
    fill(store)
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("precious")
    kept = ["notes.txt", "objects/readme", "wheels/mine.txt", "host/file", "objects/ab/short"]
    for name in kept:
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_text("precious")
    (store.root / "columns" / ("1" * 64)).symlink_to(outside)
    (store.root / "states").symlink_to(outside)
    removal = clear()
    assert measure_usage().sections == ()
    assert (removal.entries, removal.left.bytes) == (10, 0)
    assert [name for name in kept if not (store.root / name).exists()] == []
    assert (outside / "file").read_text() == "precious"
    assert (store.root / "states").is_symlink()


def test_prune_keeps_recently_used_entries(store):
    old, used = fill(store)
    age(store.root, 40)
    assert store.get(used.name) == used
    assert store.recall("tallies", "ab12") == {"n": 1}
    assert edgekit("cache", "--prune", "30d").code == 0
    assert not old.exists()
    assert store.get(used.name) == used
    assert store.recall("tallies", "ab12") == {"n": 1}
    assert {s.name: s.entries for s in measure_usage().sections} == {"models": 1, "figures": 1}
    assert prune("1w").entries == 0


def test_nothing_is_removed_under_a_running_build(store):
    one, _ = fill(store)
    code = (
        "import sys, pathlib; from edgekit.cache.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).scratch(): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as build:
        build.stdout.readline()
        done = edgekit("cache", "--clear")
        build.stdin.close()
    assert (done.code, done.out) == (2, "")
    assert "another edgekit command is using the cache" in done.err
    assert one.exists()
    assert edgekit("cache", "--clear").code == 0
    assert not one.exists()


def test_a_missing_cache_is_empty(store):
    assert measure_usage().bytes == 0
    assert clear().entries == 0
    assert not store.root.exists()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("12h", 43200), ("2w", 14 * DAY_S)])
def test_ages_are_parsed(text, seconds):
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "1y", "٣d", "9999999d"])
def test_an_invalid_age_is_refused(text):
    with pytest.raises(UserError, match="not an age"):
        parse_age(text)


def test_several_actions_at_once_are_refused(store):
    assert edgekit("cache", "--clear", "--prune", "1d").code == 2
