"""Download, cache and check of onnxruntime-web."""

import stat

import pytest

from edgekit.errors import UserError
from edgekit.remote.web.runtime_files import ARCHIVE, FILES, VERSION, fetch_web_runtime


def write_npm(folder, body):
    """Write an npm of our own, first on PATH."""
    folder.mkdir(exist_ok=True)
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{body}\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    return folder


def test_the_runtime_is_fetched_once_and_then_read_from_the_cache(
    web_runtime, shared_cache, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    again = fetch_web_runtime(shared_cache / "web-runtime")
    assert set(again.files) == set(FILES)
    assert again.files[FILES[2]][:4] == b"\0asm"
    assert (again.version, again.license) == (VERSION, "MIT")
    assert again == web_runtime


def test_an_archive_from_elsewhere_needs_neither_npm_nor_a_cache(
    web_runtime, shared_cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    archive = shared_cache / "web-runtime" / ARCHIVE
    assert fetch_web_runtime(tmp_path / "none", archive=archive) == web_runtime
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"", b"another archive"])
def test_another_archive_is_refused(tmp_path, content):
    archive = tmp_path / "other.tgz"
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.tgz: not onnxruntime-web .* sha512 differs"):
        fetch_web_runtime(tmp_path, archive=archive)


def test_without_npm_the_message_says_how_to_get_the_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="npm is needed") as refused:
        fetch_web_runtime(tmp_path)
    assert f"npm pack onnxruntime-web@{VERSION}" in refused.value.hint
    assert "--runtime-archive" in refused.value.hint


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo npm error network >&2; exit 1", "npm error network"),
        (f"echo changed > {ARCHIVE}", "sha512 differs"),
        ("exit 0", "status 0"),
    ],
)
def test_what_npm_did_wrong_is_told_and_nothing_is_kept(tmp_path, monkeypatch, body, says):
    monkeypatch.setenv("PATH", f"{write_npm(tmp_path / 'bin', body)}:/usr/bin:/bin")
    with pytest.raises(UserError, match=says):
        fetch_web_runtime(tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_damaged_archive_in_the_cache_is_fetched_again(tmp_path, monkeypatch):
    (tmp_path / ARCHIVE).write_bytes(b"damaged")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="npm is needed"):
        fetch_web_runtime(tmp_path)
