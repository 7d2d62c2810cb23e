"""Edited results and data in the cache are detected and computed again."""

import json
import re

import numpy as np
import pytest

from edgekit.cache import integrity as seals
from edgekit.cache.store import Store
from edgekit.data.readers import read_table
from edgekit.errors import UserError
from edgekit_agent.files import sha256_of
from tests.remote.test_wheels import NATIVE, fetch, wheel


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    return Store(tmp_path / "store")


def store_and_edit(store):
    (path,) = store.root.rglob("*.json")
    return path


TALLY = {"n": 1000, "correct": 788}


def test_an_edited_result_is_measured_again(store):
    store.remember("tallies", "ab12", TALLY)
    assert store.recall("tallies", "ab12") == TALLY
    path = store_and_edit(store)
    path.write_bytes(path.read_bytes().replace(b"788", b"797"))
    assert store.recall("tallies", "ab12") is None


def test_a_result_without_a_seal_is_measured_again(store):
    store.remember("tallies", "ab12", TALLY)
    store_and_edit(store).write_text(json.dumps(TALLY))
    assert store.recall("tallies", "ab12") is None


@pytest.mark.parametrize(("kind", "key"), [("tallies", "ab34"), ("timings", "ab12")])
def test_a_sealed_result_is_not_used_for_another_candidate(store, kind, key):
    store.remember("tallies", "ab12", TALLY)
    data = store_and_edit(store).read_bytes()
    store.remember(kind, key, {"n": 1})
    (store.root / kind / "ab" / f"{key}.json").write_bytes(data)
    assert store.recall(kind, key) is None


def test_a_seal_of_another_user_is_not_accepted(store, tmp_path, monkeypatch):
    store.remember("tallies", "ab12", TALLY)
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "other"))
    assert store.recall("tallies", "ab12") is None
    store.remember("tallies", "ab12", TALLY)
    assert store.recall("tallies", "ab12") == TALLY


def test_the_key_is_the_users_alone_and_stays_the_same(store, tmp_path):
    store.remember("tallies", "ab12", TALLY)
    key = tmp_path / "config" / seals.KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in key.parent.iterdir()] == [key.name]
    seals._load_key.cache_clear()
    assert store.recall("tallies", "ab12") == TALLY


@pytest.mark.parametrize("data", [b"", b"short", b"x" * 33])
def test_a_damaged_key_causes_one_line(store, tmp_path, data):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / seals.KEY_FILE).write_bytes(data)
    with pytest.raises(UserError, match=r"cache\.key: not a key"):
        store.remember("tallies", "ab12", TALLY)


def test_a_key_that_cannot_be_stored_causes_one_line(store, tmp_path):
    (tmp_path / "config").write_text("a file")
    with pytest.raises(UserError, match="cannot store the key") as caught:
        store.remember("tallies", "ab12", TALLY)
    assert "EDGEKIT_CONFIG" in caught.value.hint


def test_edited_labels_are_unpacked_again(tmp_path, store):
    labels = np.arange(200) % 3
    np.savez_compressed(tmp_path / "eval.npz", x=np.zeros((200, 4), np.float32), label=labels)

    def label_file():
        table = read_table("eval.npz", folder=tmp_path, cache=store.root)
        return next(c.path for c in table.columns if c.name == "label")

    path = label_file()
    whole = np.load(path)
    np.save(path, np.zeros_like(whole))
    again = np.load(label_file())
    assert (again == labels).all()


def test_edited_seals_of_labels_do_not_help(tmp_path, store):
    np.savez_compressed(tmp_path / "eval.npz", label=np.arange(200) % 3)
    (column,) = read_table("eval.npz", folder=tmp_path, cache=store.root).columns
    np.save(column.path, np.zeros(200, np.int64))
    (seal,) = store.root.rglob("*.seal")
    seal.write_text("0" * len(seal.read_text()))
    (column,) = read_table("eval.npz", folder=tmp_path, cache=store.root).columns
    assert np.load(column.path).any()
    assert re.fullmatch(r"[0-9a-f]{64}", seal.read_text())


@pytest.fixture
def wheels(tmp_path, monkeypatch, store):
    """Create a cache of wheels, downloaded from an index with two wheels."""
    index = tmp_path / "index"
    for name, needs in (("numpy", []), ("onnxruntime", ["numpy"])):
        wheel(index, name, "1.32.0", NATIVE, needs)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    fetch(tmp_path)
    return tmp_path / "cache"


def test_a_wheel_that_an_edited_lock_names_is_not_sent(tmp_path, wheels):
    """It runs on every device that gets its runtime from here."""
    first = fetch(tmp_path)
    evil = wheel(tmp_path / "evil", "onnxruntime", "1.32.0", NATIVE, ["numpy", "numpy>1"])
    (here,) = wheels.glob("onnxruntime*.whl")
    (lock,) = wheels.glob("*.lock.json")
    known = sha256_of(str(here))
    lock.write_text(lock.read_text().replace(known, sha256_of(str(evil))))
    here.write_bytes(evil.read_bytes())
    assert fetch(tmp_path) == first
    assert sha256_of(str(here)) == known


@pytest.mark.parametrize("version", ["1.32.0", "1.99.0"])
def test_a_wheel_that_lies_in_the_cache_without_a_lock_is_not_sent(tmp_path, wheels, version):
    first = fetch(tmp_path)
    for path in wheels.glob("*.lock.json"):
        path.unlink()
    for name in ("onnxruntime", "numpy"):
        wheel(wheels, name, version, NATIVE, ["numpy", "numpy>1"])
    assert fetch(tmp_path) == first
