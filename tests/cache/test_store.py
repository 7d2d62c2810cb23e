"""Entries of the store are complete, or absent."""

from __future__ import annotations

import hashlib

import pytest

from edgekit.cache.store import Store, get_default_root


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def put(store, data):
    with store.scratch() as scratch:
        (scratch / "file").write_bytes(data)
        return store.put(scratch / "file")


def test_a_file_is_found_again_by_the_digest_of_its_bytes(store):
    path = put(store, b"model")
    digest = hashlib.sha256(b"model").hexdigest()

    assert path.name == digest
    assert store.get(digest) == path
    assert store.get(digest).read_bytes() == b"model"


def test_putting_the_same_bytes_twice_works(store):
    assert put(store, b"model") == put(store, b"model")


@pytest.mark.parametrize("damage", [b"", b"mod", b"other"])
def test_a_damaged_object_is_removed_and_can_be_stored_again(store, damage):
    path = put(store, b"model")
    path.write_bytes(damage)

    assert store.get(path.name) is None
    assert put(store, b"model").read_bytes() == b"model"


def test_facts_come_back_as_they_were_by_kind_and_key(store):
    store.remember("tallies", "abcd", {"n": 3, "hits": "e0"})

    assert store.recall("tallies", "abcd") == {"n": 3, "hits": "e0"}
    assert store.recall("timings", "abcd") is None
    assert store.recall("tallies", "abce") is None


@pytest.mark.parametrize("damage", [b"", b'{"n": ', b"[1]", b"\xff\xfe"])
def test_facts_that_were_damaged_count_as_unknown(store, damage):
    store.remember("tallies", "abcd", {"n": 3})
    next(store.root.rglob("abcd.json")).write_bytes(damage)

    assert store.recall("tallies", "abcd") is None


def test_facts_of_another_version_count_as_unknown(store):
    store.remember("k", "1f", {"bytes": 3})
    assert store.recall_as("k", "1f", lambda facts: int(facts["bytes"])) == 3
    assert store.recall_as("k", "1f", lambda facts: int(facts["size"])) is None
    assert store.recall_as("k", "2f", dict) is None


def test_a_scratch_folder_is_gone_at_the_end_even_after_a_failure(store):
    def fail():
        with store.scratch() as scratch:
            (scratch / "half").write_bytes(b"half")
            raise RuntimeError(str(scratch))

    with pytest.raises(RuntimeError, match="scratch"):
        fail()
    assert not any((store.root / "scratch").iterdir())


def test_the_users_wish_decides_where_the_store_is(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGEKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert get_default_root() == tmp_path / "xdg" / "edgekit"

    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "own"))
    assert get_default_root() == tmp_path / "own"


def work_until(store, error):
    with store.checkpoints("ab") as folder:
        (folder / "step").write_bytes(b"10")
        raise error


def test_checkpoints_outlive_an_interruption(store):
    with pytest.raises(KeyboardInterrupt):
        work_until(store, KeyboardInterrupt())

    with store.checkpoints("ab") as folder:
        assert (folder / "step").read_bytes() == b"10"
    assert not folder.exists()


def test_checkpoints_of_a_failed_job_are_removed(store):
    with pytest.raises(OSError, match="full"):
        work_until(store, OSError("full"))

    with store.checkpoints("ab") as folder:
        assert not (folder / "step").exists()


def test_two_processes_do_not_share_the_checkpoints_of_a_job(store):
    with store.checkpoints("ab") as first:
        with store.checkpoints("ab") as second, store.checkpoints("cd") as other:
            assert second is None
            assert other not in (first, None)
        assert first.is_dir()
