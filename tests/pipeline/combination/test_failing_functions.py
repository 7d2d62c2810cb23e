"""Functions of a [pipeline] that fail with compressed models only."""

from __future__ import annotations

from tests.builders.projects import edgekit
from tests.pipeline.combination.digit_scenes import CODE, write_project

# Quantized outputs have at most 256 values.
_RAISES = '    if len(np.unique(heat)) < 300:\n        raise ValueError("too few values")\n    row,'


def test_a_function_that_refuses_the_candidate_is_no_fault_of_edgekit(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    project = write_project(tmp_path / "scenes", code=CODE.replace("    row,", _RAISES))

    done = edgekit("build", "-C", project, "--step", "quantize-static", "--runtime", "onnxruntime")

    assert done.code == 2
    assert "locator: quantize-static: fails on the evaluation data" in done.err
    assert "reading:run: ValueError: too few values (reading.py, line 7)" in done.err
    assert not (project / "build").exists()
