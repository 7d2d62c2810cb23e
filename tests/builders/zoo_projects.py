"""A model of the zoo as a project."""

import pytest
import zoo as bench

from edgekit.pipeline.request import Request, read_build_inputs


def taken_in(zoo, tmp_path, monkeypatch, name):
    """Return the entry of a model and the inputs of its build."""
    if not (zoo / name).is_dir():
        pytest.skip(f"{name} is not in {zoo}")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    entry = bench.entries(zoo)[name]
    folder = bench.write_project(zoo, entry, tmp_path / name)
    return entry, read_build_inputs(Request(folder=folder, device="tablet"))
