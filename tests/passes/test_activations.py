"""One estimator for each value: chosen by what its readers make of it."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.passes.activations import split_samples
from edgekit_agent.feeds import batches
from edgekit_agent.runtimes import Tensor
from tests.tiny import apply, fused_ops, model, run, samples, sqnr_db, uniform

# x has rare outliers that matter to nobody: its reader cuts them off. u is uniform.
TEXT = (
    "g (float[N,256] x, float[N,256] u) => (float[N,32] y, float[N,32] z) "
    "{ c = Clip(x, low, high) p = MatMul(c, w) e = Exp(p) t = MatMul(e, v) y = Neg(t) "
    "q = MatMul(u, w) z = Neg(q) }"
)


def heavy_tails(rows, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_t(2.1, (rows, 256)).astype(np.float32)


@pytest.fixture
def mixed(tmp_path):
    weights = {
        "w": uniform(256, 32, scale=0.06),
        "v": uniform(32, 32, scale=0.2, seed=1),
        "low": np.float32(-50),
        "high": np.float32(50),
    }
    source = model(tmp_path, TEXT, weights=weights)
    data = samples(tmp_path, x=heavy_tails(128, 0), u=uniform(128, 256))
    return source, data, {"x": heavy_tails(256, 1), "u": uniform(256, 256, seed=2)}


def test_a_choice_per_value_beats_each_estimator_for_all_values(tmp_path, mixed):
    source, data, inputs = mixed
    before = run(source, **inputs)

    def quality(ranges):
        made = apply("quantize", source, tmp_path, data, ranges=ranges, bias_correction=False)
        after = run(made, **inputs)
        # The worse of both outputs: an estimator that is right for one fails on the other.
        return min(sqnr_db(b, a) for b, a in zip(before, after, strict=True))

    best = max(quality(r) for r in ("minmax", "average", "percentile", "entropy", "mse"))
    assert quality("auto") > best - 0.2


def test_samples_that_judge_are_not_among_those_that_ranges_come_from(tmp_path):
    split = split_samples(samples(tmp_path, x=np.arange(1000, dtype=np.float32)[:, None]), 512)

    tensor = Tensor("x", "float32", ("N", 1))
    estimating, judging = (
        [float(b.inputs["x"].item()) for part in parts for b in batches(part, [tensor], 1)]
        for parts in (split.estimating, split.judging)
    )
    assert not set(estimating) & set(judging)
    assert len(judging) == len(set(judging)) == 16
    assert 480 <= len(estimating) == len(set(estimating)) <= 512
    assert min(judging) < 100
    assert max(judging) > 900


def test_a_graph_of_two_parts_is_still_one_of_integer_kernels(tmp_path, mixed):
    source, data, _ = mixed
    made = apply("quantize", source, tmp_path, data)

    assert "MatMul" not in fused_ops(made, tmp_path)
