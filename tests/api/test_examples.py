"""The examples of the docstrings run as they are, in the folder of a project."""

import doctest
import inspect

import pytest

import edgekit

FUNCTIONS = [n for n in edgekit.__all__ if n[0].islower()]


@pytest.fixture
def project(digits, monkeypatch):
    """The current folder is a project of a model and its data."""
    monkeypatch.chdir(digits)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_runs(name):
    function = getattr(edgekit, name)
    found = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
    assert [len(each.examples) > 0 for each in found] == [True]
    said = []
    result = doctest.DocTestRunner().run(found[0], out=said.append)
    assert result.failed == 0, "".join(said)
    assert inspect.getmodule(function).__name__.startswith("edgekit.api.")
