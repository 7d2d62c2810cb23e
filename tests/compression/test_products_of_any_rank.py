"""Matrix products with a batched or left-hand weight, in every pass."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit.errors import PassRefused
from tests.builders.tiny import apply, model, run, samples, sqnr_db
from tests.compression.test_half_precision import outputs, relative

_RANDOM = np.random.default_rng(11)


def normal(*shape, scale=0.2):
    return (_RANDOM.normal(size=shape) * scale).astype(np.float32)


def thin(rank, *shape):
    """A batch of matrices of a low rank."""
    return normal(*shape[:-1], rank, scale=0.5) @ normal(*shape[:-2], rank, shape[-1], scale=0.5)


# Each: inputs and outputs as text, the graph, shapes of its weights, and the shape of an input.
KINDS = {
    "on the right": (
        "float[N,3,5,48] x", "float[N,3,5,32] y", "h = MatMul(x, a) r = Relu(h) y = MatMul(r, b)",
        {"a": (3, 48, 64), "b": (3, 64, 32)}, (3, 5, 48),
    ),
    "with a bias": (
        "float[N,3,5,48] x", "float[N,3,5,32] y",
        "h = MatMul(x, a) g = Add(h, c) r = Relu(g) y = MatMul(r, b)",
        {"a": (3, 48, 64), "b": (3, 64, 32), "c": (3, 1, 64)}, (3, 5, 48),
    ),
    "on the left": (
        "float[N,3,48,5] x", "float[N,3,32,5] y", "h = MatMul(a, x) r = Relu(h) y = MatMul(b, r)",
        {"a": (3, 64, 48), "b": (3, 32, 64)}, (3, 48, 5),
    ),
    "experts": (
        "float[N,1,5,48] x", "float[N,3,5,32] y", "h = MatMul(x, a) r = Relu(h) y = MatMul(r, b)",
        {"a": (3, 48, 64), "b": (3, 64, 32)}, (1, 5, 48),
    ),
    "broadcast over an axis": (
        "float[N,3,2,5,48] x", "float[N,3,2,5,32] y",
        "h = MatMul(x, a) r = Relu(h) y = MatMul(r, b)",
        {"a": (3, 1, 48, 64), "b": (1, 3, 1, 64, 32)}, (3, 2, 5, 48),
    ),
    "broadcast on the left": (
        "float[N,3,48,5] x", "float[N,3,32,5] y", "h = MatMul(a, x) r = Relu(h) y = MatMul(b, r)",
        {"a": (1, 3, 64, 48), "b": (1, 3, 32, 64)}, (3, 48, 5),
    ),
    "einsum": (
        "float[N,5,48] x", "float[N,5,32] y",
        'h = Einsum<equation = "btc,co->bto">(x, a) r = Relu(h)'
        ' y = Einsum<equation = "bto,tod->btd">(r, b)',
        {"a": (48, 64), "b": (5, 64, 32)}, (5, 48),
    ),
}  # fmt: skip


def source_of(folder, kind, rank=None):
    inputs, made, body, shapes, shape = KINDS[kind]
    weights = {
        name: thin(rank, *dims) if rank and dims[-2] > 1 else normal(*dims)
        for name, dims in shapes.items()
    }
    source = model(folder, f"g ({inputs}) => ({made}) {{ {body} }}", weights=weights)
    return source, {"x": normal(64, *shape, scale=1)}


@pytest.mark.parametrize(
    ("step", "settings", "most", "size"),
    [
        ("quantize-static", {}, 0.03, 0.32),
        ("quantize-dynamic", {}, 0.03, 0.32),
        ("quantize-weights", {"bits": 6.0}, 0.05, 0.35),
        ("quantize-weights", {"bits": 4.0, "container": "native"}, 0.2, 0.2),
        ("prune-weights", {"sparsity": 0.2}, 0.12, 1.01),
        ("float16", {}, 0.002, 0.52),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_processes_the_product_and_stays_close(tmp_path, kind, step, settings, most, size):
    source, data = source_of(tmp_path, kind)

    made = apply(step, source, tmp_path, samples(tmp_path, **data), **settings)

    assert relative(outputs(source, data), outputs(made, data)) < most
    assert made.bytes < size * source.bytes + 2048


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "einsum"])
def test_batches_of_a_low_rank_are_factorized_without_error(tmp_path, kind):
    source, data = source_of(tmp_path, kind, rank=8)

    made = apply("low-rank", source, tmp_path, samples(tmp_path, **data), keep=0.5)

    assert relative(outputs(source, data), outputs(made, data)) < 1e-3
    assert made.bytes < 0.6 * source.bytes


def test_zeros_are_as_many_as_asked(tmp_path):
    source, data = source_of(tmp_path, "on the right")

    made = apply("prune-weights", source, tmp_path, samples(tmp_path, **data), sparsity=0.5)

    stored = [onnx.numpy_helper.to_array(t) for t in onnx.load(str(made.path)).graph.initializer]
    weights = [w for w in stored if w.ndim == 3]
    zeros = sum((w == 0).sum() for w in weights) / sum(w.size for w in weights)
    assert 0.47 < zeros < 0.53


@pytest.mark.parametrize(
    ("step", "text", "weights", "reason"),
    [
        (
            "quantize-weights", "g (float[N,2,4] x) => (float[N,2,3] y) { y = MatMul(x, w) }",
            {"w": normal(2, 4, 3)}, r"w \(MatMul, 2 x 4 x 3\) is too small: 24 entries",
        ),
        (
            "quantize-static", "g (float[N,2,4] x) => (float[N,2,3] y) { y = MatMul(x, w) }",
            {"w": normal(2, 4, 3)}, r"w \(MatMul, 2 x 4 x 3\) is too small: 24 entries",
        ),
        (
            "low-rank", "g (float[N,2] x) => (float[N,2] y) { y = MatMul(x, w) }",
            {"w": normal(2, 2)}, r"factorization reduces no layer: .*w \(2 x 2\)",
        ),
        (
            "prune-weights", "g (double[N,4] x) => (double[N,3] y) { y = MatMul(x, w) }",
            {"w": normal(4, 3).astype(np.float64)}, r"w \(MatMul, 4 x 3\) is stored as float64",
        ),
        (
            "quantize-static", "g (double[N,4] x) => (double[N,3] y) { y = MatMul(x, w) }",
            {"w": normal(4, 3).astype(np.float64)}, r"w \(MatMul, 4 x 3\) is stored as float64",
        ),
        (
            "low-rank", "g (double[N,4] x) => (double[N,3] y) { y = MatMul(x, w) }",
            {"w": normal(4, 3).astype(np.float64)}, r"w \(MatMul, 4 x 3\) is stored as float64",
        ),
        (
            "prune-weights", "g (float[N,4] x, bool c) => (float[N,3] y) { y = If(c)"
            " <then_branch = t () => (float[N,3] u) { u = MatMul(x, w) },"
            " else_branch = e () => (float[N,3] v) { v = MatMul(x, w) }> }",
            {"w": normal(4, 3)}, r"w \(MatMul, 4 x 3\) is read inside If, Loop or Scan",
        ),
        (
            "quantize-static", "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }",
            {}, "no layer has stored float weights",
        ),
    ],
)  # fmt: skip
def test_a_refusal_gives_the_true_reason(tmp_path, step, text, weights, reason):
    source = model(tmp_path, text, weights=weights)
    fed = {"x": np.ones((8, *source.signature.inputs[0].shape[1:]))}
    fed["x"] = fed["x"].astype(source.signature.inputs[0].dtype)
    if "bool c" in text:
        fed["c"] = np.ones(8, bool)
    with pytest.raises(PassRefused, match=reason):
        apply(step, source, tmp_path, samples(tmp_path, **fed))


@pytest.mark.parametrize(
    "step", ["quantize-weights", "prune-weights", "low-rank", "quantize-static"]
)
@pytest.mark.parametrize(
    ("product", "shape"),
    [
        ("MatMul(h, w)", (3, 64, 96)),
        ("MatMul(w, h)", (3, 96, 64)),
        ("MatMul(h, w)", (1, 64, 96)),
        ("MatMul(w, h)", (1, 96, 64)),
    ],
)
def test_a_product_with_a_vector_is_taken_or_refused_with_the_reason(
    tmp_path, step, product, shape
):
    text = f"g (float[64] x) => (float[{shape[0]},96] y) {{ h = Relu(x) y = {product} }}"
    source = model(tmp_path, text, weights={"w": thin(8, *shape)})
    data = {"x": normal(64, scale=1)}
    if step == "low-rank" and shape[0] > 1:
        with pytest.raises(PassRefused, match="batch of matrices"):
            apply(step, source, tmp_path, samples(tmp_path, **data))
        return

    made = apply(step, source, tmp_path, samples(tmp_path, **data))

    assert sqnr_db(run(source, **data)[0], run(made, **data)[0]) > 10
