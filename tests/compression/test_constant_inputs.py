"""Constant inputs of edgekit.toml that decide a branch remove the other branch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekit.compression.pass_specs import PASSES, build_step
from edgekit.compression.recipe_parser import parse_settings
from edgekit.compression.step_runner import run_checked
from edgekit.data.input_settings import Feeding
from edgekit.onnx_graph.io import read_onnx
from edgekit.pipeline.apply import apply
from edgekit.progress import ignore_progress
from tests.builders.tiny import normal, run, work, write

WIDE = 64


def source_of(folder, *, rank=8):
    """A network of two layers for each sample rate, all of it in the branches of an If."""
    inner = [
        onnx.parser.parse_graph(
            f"{name} () => (float[N,{WIDE}] {name}_y) {{ {name}_h = MatMul(x, {name}_w) "
            f"{name}_r = Relu({name}_h) {name}_y = MatMul({name}_r, {name}_v) }}"
        )
        for name in ("wide", "narrow")
    ]
    for graph in inner:
        for end in "wv":
            weight = normal(WIDE, rank) @ normal(rank, WIDE) / WIDE
            graph.initializer.append(numpy_helper.from_array(weight, f"{graph.name}_{end}"))
    graph = helper.make_graph(
        [
            helper.make_node("Equal", ["sr", "rate"], ["is_wide"]),
            helper.make_node("If", ["is_wide"], ["h"], then_branch=inner[0], else_branch=inner[1]),
            helper.make_node("Neg", ["h"], ["y"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", WIDE]),
            helper.make_tensor_value_info("sr", onnx.TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", WIDE])],
        [numpy_helper.from_array(np.array(16000), "rate")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return write(folder, made)


def run_pass(name, source, folder, x, rate=None):
    """Run a pass with or without the rate in edgekit.toml."""
    settings = {"quantize-weights": ["bits=6"], "prune-weights": ["sparsity=0.2"]}.get(name, [])
    constant = f"[model.inputs.sr]\nconstant = {rate}\n" if rate else ""
    (folder / "edgekit.toml").write_text(constant)
    np.savez(folder / "data.npz", x=x)
    return apply(
        parse_settings(name, settings, where=""),
        source.path,
        folder / "made.onnx",
        data="data.npz" if rate else None,
        folder=folder,
        tick=ignore_progress,
    )


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("clean", 0.55),
        ("quantize-static", 0.2),
        ("quantize-dynamic", 0.2),
        ("quantize-weights", 0.2),
        ("prune-weights", 0.55),
        ("prune-channels", 0.5),
        ("low-rank", 0.4),
    ],
)
def test_a_constant_input_drops_the_branch_that_never_runs(tmp_path, name, most, rate):
    source = source_of(tmp_path)
    x = normal(64, WIDE)

    found = run_pass(name, source, tmp_path, x, rate)

    made = read_onnx(found.after.path)
    assert made.bytes < most * source.bytes
    assert made.signature.inputs == source.signature.inputs
    assert (
        f"input sr is fixed to {rate} (from edgekit.toml); the file ignores other values"
    ) in found.notes
    exact, told = (run(each, x=x, sr=np.array(rate))[0] for each in (source, made))
    assert np.abs(told - exact).max() < 0.3 * np.abs(exact).max()


def test_without_constants_both_branches_stay(tmp_path):
    source = source_of(tmp_path)

    found = run_pass("clean", source, tmp_path, normal(3, WIDE))

    for rate in (16000, 8000):
        x = normal(3, WIDE)
        exact, told = (
            run(each, x=x, sr=np.array(rate))[0] for each in (source, read_onnx(found.after.path))
        )
        np.testing.assert_allclose(told, exact, rtol=1e-5, atol=1e-6)


def test_a_constant_input_that_decides_no_branch_is_still_read(tmp_path):
    text = "g (float[N,4] x, float k) => (float[N,4] y) { h = Mul(x, k) y = Relu(h) }"
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    source = write(tmp_path, made)
    own = replace(work(tmp_path), feeding=Feeding(constants={"k": np.array(2, np.float32)}))

    found = run_checked(build_step(PASSES["clean"].settings()), source, own)

    x = normal(3, 4)
    np.testing.assert_allclose(
        run(found.model, x=x, k=np.array(3, np.float32))[0], np.maximum(3 * x, 0), rtol=1e-6
    )
    assert not any("is fixed" in note for note in found.notes)
