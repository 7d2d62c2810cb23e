"""Receiving files: partial transfers, damaged bytes, packed files and missing disk space."""

import dataclasses
import fcntl
import os
import subprocess
import sys
import zlib

import pytest

from edgekit_agent.jobs import ForgetJob, PlanJob, ReceiveJob, StatusJob
from edgekit_agent.results import ForgetResult, Plan, ReceiveResult, Status

DATA = bytes(range(256)) * 4096  # 1 MiB


def present(agent, home, *blobs):
    return agent.ask(PlanJob(str(home), blobs), Plan).present


@pytest.mark.parametrize("encoding", ["raw", "zlib", "packed"])
def test_a_complete_blob_is_stored(agent, blob, tmp_path, encoding):
    described, wire = blob(DATA, encoding)
    assert present(agent, tmp_path, described) == (0,)
    received = agent.ask(ReceiveJob(str(tmp_path), (described,), (0,)), ReceiveResult, wire)
    assert received == ReceiveResult(1, len(wire))
    assert present(agent, tmp_path, described) == (-1,)
    assert (tmp_path / "objects" / described.digest).read_bytes() == DATA
    assert list((tmp_path / "parts").iterdir()) == []


@pytest.mark.parametrize("encoding", ["raw", "zlib", "packed"])
def test_an_interrupted_transfer_is_resumed(start_agent, blob, tmp_path, encoding):
    described, wire = blob(os.urandom(100_000), encoding)
    first = start_agent()
    first.send(ReceiveJob(str(tmp_path), (described,), (0,)), wire[:70_000])
    first.process.stdin.close()
    assert first.process.wait(timeout=10) == 0
    second = start_agent()
    assert present(second, tmp_path, described) == (70_000,)
    job = ReceiveJob(str(tmp_path), (described,), (70_000,))
    assert second.ask(job, ReceiveResult, wire[70_000:]) == ReceiveResult(1, len(wire) - 70_000)
    assert present(second, tmp_path, described) == (-1,)


def test_a_complete_partial_file_needs_no_more_bytes(agent, blob, tmp_path):
    described, wire = blob(DATA, "zlib")
    (tmp_path / "parts").mkdir()
    name = f"{described.digest}.{described.wire_digest}.part"
    (tmp_path / "parts" / name).write_bytes(wire)
    job = ReceiveJob(str(tmp_path), (described,), (len(wire),))
    assert agent.ask(job, ReceiveResult) == ReceiveResult(1, 0)
    assert present(agent, tmp_path, described) == (-1,)


def test_damaged_bytes_are_dropped_and_the_next_job_is_understood(agent, blob, tmp_path):
    described, wire = blob(DATA)
    other, rest = blob(b"another")
    job = ReceiveJob(str(tmp_path), (described, other), (0, 0))
    failure = agent.ask(job, ReceiveResult, b"X" + wire[1:] + rest)
    assert (failure.kind, failure.transient) == ("corrupt", True)
    assert present(agent, tmp_path, described, other) == (0, 0)


@pytest.mark.parametrize(
    "wire", [b"no zlib at all", zlib.compress(DATA + b"!"), zlib.compress(DATA)[:-40]]
)
def test_a_file_that_expands_to_other_content_is_dropped(agent, blob, tmp_path, wire):
    described, _ = blob(DATA)
    wired, _ = blob(wire)
    lie = dataclasses.replace(
        described, wire_digest=wired.digest, wire_size=wired.size, encoding="zlib"
    )
    failure = agent.ask(ReceiveJob(str(tmp_path), (lie,), (0,)), ReceiveResult, wire)
    assert failure.kind == "corrupt"
    assert present(agent, tmp_path, lie) == (0,)
    assert list((tmp_path / "objects").iterdir()) == []


@pytest.mark.parametrize("at", [0, 9, 200, -3])
def test_packed_bytes_of_other_content_are_dropped(agent, blob, tmp_path, at):
    described, wire = blob(bytes(range(250)) * 4, "packed")
    wire = bytearray(wire)
    wire[at] ^= 4
    wired, _ = blob(bytes(wire))
    lie = dataclasses.replace(described, wire_digest=wired.digest)
    failure = agent.ask(ReceiveJob(str(tmp_path), (lie,), (0,)), ReceiveResult, bytes(wire))
    assert (failure.kind, failure.transient) == ("corrupt", True)
    assert present(agent, tmp_path, described) == (0,)
    assert list((tmp_path / "objects").iterdir()) == []
    assert list((tmp_path / "parts").iterdir()) == []


def test_packed_bytes_that_unpack_to_more_than_they_should_are_dropped(agent, blob, tmp_path):
    described, wire = blob(DATA, "packed")
    lie = dataclasses.replace(described, size=1000)
    failure = agent.ask(ReceiveJob(str(tmp_path), (lie,), (0,)), ReceiveResult, wire)
    assert failure.kind == "corrupt"
    assert list((tmp_path / "objects").iterdir()) == []


def test_later_blobs_are_received_before_a_packed_one_is_expanded(agent, blob, tmp_path):
    (packed, wire), (plain, rest) = blob(DATA, "packed"), blob(b"another")
    job = ReceiveJob(str(tmp_path), (packed, plain), (0, 0))
    agent.send(job, wire)
    assert not (tmp_path / "objects" / packed.digest).exists()
    agent.process.stdin.write(rest)
    agent.process.stdin.flush()
    assert agent.answer(ReceiveResult) == ReceiveResult(2, len(wire) + len(rest))
    assert present(agent, tmp_path, packed, plain) == (-1, -1)


def test_without_numpy_packed_bytes_are_kept_and_reported(start_agent, blob, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "numpy.py").write_text("raise ImportError('no numpy for this processor')")
    agent = start_agent()
    described, wire = blob(DATA, "packed")
    site = str(tmp_path / "site")
    home = tmp_path / "home"
    failure = agent.ask(ReceiveJob(str(home), (described,), (0,), site), ReceiveResult, wire)
    assert failure.kind == "missing_runtime"
    assert "no numpy for this processor" in failure.message
    assert present(agent, home, described) == (len(wire),)
    assert list((home / "objects").iterdir()) == []
    again = ReceiveJob(str(home), (described,), (len(wire),))
    assert agent.ask(again, ReceiveResult) == ReceiveResult(1, 0)
    assert present(agent, home, described) == (-1,)


def test_the_missing_space_counts_what_packed_bytes_unpack_to(agent, blob, tmp_path):
    described, _ = blob(DATA, "packed")
    huge = dataclasses.replace(described, size=1 << 60)
    agent.send(ReceiveJob(str(tmp_path), (huge,), (0,)))
    assert agent.answer(ReceiveResult).kind == "no_space"


def test_a_damaged_object_does_not_count_as_present(agent, blob, tmp_path):
    described, wire = blob(DATA)
    job = ReceiveJob(str(tmp_path), (described,), (0,))
    agent.ask(job, ReceiveResult, wire)
    (tmp_path / "objects" / described.digest).write_bytes(b"rot")
    assert present(agent, tmp_path, described) == (0,)
    agent.ask(job, ReceiveResult, wire)
    assert present(agent, tmp_path, described) == (-1,)


def test_missing_space_is_reported_before_a_byte_is_read(agent, blob, tmp_path):
    described, _ = blob(DATA)
    huge = dataclasses.replace(described, size=1 << 60, wire_size=1 << 60)
    agent.send(ReceiveJob(str(tmp_path), (huge,), (0,)))
    failure = agent.answer(ReceiveResult)
    assert failure.kind == "no_space"
    assert "MiB of disk space missing" in failure.message


def test_a_file_that_cannot_grow_is_reported(start_agent, blob, tmp_path):
    limit = f"ulimit -f 512; exec {sys.executable} -m edgekit_agent"
    agent = start_agent(["bash", "-c", limit])
    described, wire = blob(DATA)
    failure = agent.ask(ReceiveJob(str(tmp_path), (described,), (0,)), ReceiveResult, wire)
    assert failure.kind == "no_space"
    assert present(agent, tmp_path, described)[0] >= 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_reported_and_leaves_no_partial_objects(agent, blob, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this root may not mount a tmpfs")
    try:
        described, wire = blob(os.urandom(1 << 20), "zlib")
        failure = agent.ask(ReceiveJob(str(tmp_path), (described,), (0,)), ReceiveResult, wire)
        assert failure.kind == "no_space"
        assert list((tmp_path / "objects").iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_home_in_use_is_reported_as_busy_and_transient(agent, tmp_path):
    with (tmp_path / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        failure = agent.ask(ReceiveJob(str(tmp_path), (), ()), ReceiveResult)
    assert (failure.kind, failure.transient) == ("busy", True)
    assert agent.ask(ReceiveJob(str(tmp_path), (), ()), ReceiveResult) == ReceiveResult(0, 0)


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "A" * 64])
def test_an_invalid_digest_reaches_no_file(agent, blob, tmp_path, digest):
    described, _ = blob(b"")
    odd = dataclasses.replace(described, digest=digest)
    assert agent.ask(PlanJob(str(tmp_path), (odd,)), Plan).kind == "bad_job"


def test_asking_creates_nothing(agent, blob, tmp_path):
    home = tmp_path / "not" / "yet"
    assert present(agent, home, blob(DATA)[0]) == (0,)
    assert agent.ask(StatusJob(str(home)), Status) == Status(None, None)
    assert not home.parent.exists()


def objects(home):
    return {path.name for path in (home / "objects").iterdir()}


def test_forgotten_objects_are_removed_and_others_are_kept(agent, deliver, tmp_path):
    one, two = deliver(tmp_path, {"one": b"1", "two": b"2"})
    job = ForgetJob(str(tmp_path), (one.digest, "0" * 64))
    assert agent.ask(job, ForgetResult) == ForgetResult(())
    assert objects(tmp_path) == {two.digest}
    assert agent.ask(job, ForgetResult) == ForgetResult(())


@pytest.mark.parametrize("encoding", ["raw", "zlib", "packed"])
def test_partial_objects_can_be_forgotten(start_agent, blob, tmp_path, encoding):
    described, wire = blob(os.urandom(100_000), encoding)
    first = start_agent()
    first.send(ReceiveJob(str(tmp_path), (described,), (0,)), wire[:70_000])
    first.process.stdin.close()
    assert first.process.wait(timeout=10) == 0
    assert list((tmp_path / "parts").iterdir())
    agent = start_agent()
    assert agent.ask(ForgetJob(str(tmp_path), (described.digest,)), ForgetResult) == ForgetResult(
        ()
    )
    assert list((tmp_path / "parts").iterdir()) == []


def test_objects_of_a_release_are_not_forgotten(agent, deliver, bundle, install_job, tmp_path):
    files = deliver(tmp_path, bundle("one"))
    agent.ask(install_job(tmp_path, "one", files), Status)
    (other,) = deliver(tmp_path, {"other": b"other"})
    digests = tuple(file.digest for file in files)
    job = ForgetJob(str(tmp_path), (*digests, other.digest))
    assert set(agent.ask(job, ForgetResult).kept) == set(digests)
    assert objects(tmp_path) == set(digests)
    (tmp_path / "current" / "release.json").write_text("rot")
    (other,) = deliver(tmp_path, {"other": b"other"})
    job = ForgetJob(str(tmp_path), (other.digest,))
    assert agent.ask(job, ForgetResult) == ForgetResult((other.digest,)), (
        "the release may be made of it"
    )


def test_forgetting_creates_no_files(agent, tmp_path):
    home = tmp_path / "not" / "yet"
    assert agent.ask(ForgetJob(str(home), ("0" * 64,)), ForgetResult) == ForgetResult(())
    assert not home.parent.exists()
    assert agent.ask(ForgetJob(str(home), ("../lock",)), ForgetResult).kind == "bad_job"
