"""Passes that break their contract, for tests of the runner."""

from __future__ import annotations

import onnx
import pytest
from onnx import numpy_helper

from edgekit.compression.pass_specs import PASSES, PassSpec, Promise
from edgekit.errors import PassError
from edgekit.pass_settings import Clean
from tests.builders.tiny import apply, normal

NET = "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) y = Relu(h) }"


WEIGHTS = {"w": normal(6, 4)}


def write_edited(source, work, edit):
    proto = onnx.load(str(source.path))
    edit(proto.graph)
    proto.graph.doc_string = "edited"
    path = work.scratch / "edited.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def replace_constants(**arrays):
    """Return an edit that replaces stored values."""

    def edit(graph):
        for tensor in graph.initializer:
            if tensor.name in arrays:
                tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))

    return edit


EXACT = Promise(max_relative_error=1e-3, exact=True)


def run_broken_pass(function, promise, source, folder, monkeypatch, data=None):
    """Run a pass that breaks its contract, and return the error message."""
    row = PassSpec(
        settings=Clean,
        function=f"{function.__module__}:{function.__name__}",
        summary="breaks a promise",
        version=1,
        promise=promise,
    )
    monkeypatch.setitem(PASSES, "culprit", row)
    with pytest.raises(PassError) as caught:
        apply("culprit", source, folder, data)
    return caught.value.message
