"""Versions of installed packages."""

from __future__ import annotations

import sys

import pytest

from edgekit.errors import UserError
from edgekit.pipeline.tool_versions import get_tool_version, is_installed


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-cpu"])
def test_every_distribution_of_tensorflow_counts(name, tmp_path, monkeypatch):
    folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert is_installed("tensorflow-cpu")
    assert get_tool_version("tensorflow-cpu") == "9.9"


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not is_installed("tensorflow-cpu")
    with pytest.raises(UserError) as caught:
        get_tool_version("tensorflow-cpu")
    assert "edgekit[tensorflow]" in caught.value.hint
