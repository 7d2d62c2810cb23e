"""The range estimator of each activation is chosen by the error of its readers."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.checks.sample_folds import fold_samples
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.runtimes import Tensor
from tests.builders.tiny import apply, fused_ops, model, run, samples, sqnr_db, uniform

WIDE = 4096
# Nothing reads the channel of x that has the outliers; those of u count.
TEXT = (
    f"g (float[N,{WIDE}] x, float[N,{WIDE}] u) => (float[N,32] y, float[N,32] z) "
    "{ p = MatMul(x, v) y = Neg(p) q = MatMul(u, w) z = Neg(q) }"
)


def with_outliers(rows, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (rows, WIDE)).astype(np.float32)
    x[::7, 0] = 1000
    u = rng.uniform(-1, 1, (rows, WIDE)).astype(np.float32)
    u[::6, seed] = 60
    return {"x": x, "u": u}


@pytest.fixture
def mixed(tmp_path):
    weights = {"w": uniform(WIDE, 32, scale=0.06), "v": uniform(WIDE, 32, scale=0.06, seed=1)}
    weights["v"][0] = 0
    source = model(tmp_path, TEXT, weights=weights)
    return source, samples(tmp_path, **with_outliers(80, 1)), with_outliers(64, 2)


def test_a_choice_per_value_beats_each_estimator_for_all_values(tmp_path, mixed):
    source, data, inputs = mixed
    before = run(source, **inputs)

    def worse_output_db(ranges):
        made = apply(
            "quantize-static", source, tmp_path, data, ranges=ranges, bias_correction=False
        )
        after = run(made, **inputs)
        return min(sqnr_db(b, a) for b, a in zip(before, after, strict=True))

    single = {r: worse_output_db(r) for r in ("minmax", "average", "percentile", "entropy", "mse")}
    assert worse_output_db("auto") > max(single.values()) + 3


def rows(parts):
    tensor = Tensor("x", "float32", ("N", 1))
    return [float(b.inputs["x"].item()) for part in parts for b in iter_batches(part, [tensor], 1)]


def test_samples_that_judge_are_not_among_those_that_ranges_come_from(tmp_path):
    folds = fold_samples(samples(tmp_path, x=np.arange(1000, dtype=np.float32)[:, None]), 512)

    (split,) = folds.splits
    estimating, judging = rows(split.estimating), rows(split.judging)
    assert not set(estimating) & set(judging)
    assert len(judging) == len(set(judging)) == 16
    assert 480 <= len(estimating) == len(set(estimating)) <= 512
    assert min(judging) < 100
    assert max(judging) > 900
    assert rows(folds.estimating) == estimating


@pytest.mark.parametrize("count", [2, 3, 32, 63])
def test_few_samples_are_cross_validated_and_all_of_them_give_the_ranges(tmp_path, count):
    folds = fold_samples(samples(tmp_path, x=np.arange(count, dtype=np.float32)[:, None]), 512)

    for split in folds.splits:
        estimating, judging = rows(split.estimating), rows(split.judging)
        assert estimating
        assert judging
        assert not set(estimating) & set(judging)
    assert len({row for split in folds.splits for row in rows(split.judging)}) == min(count, 32)
    assert rows(folds.estimating) == list(range(count))


def test_a_graph_of_two_parts_is_still_one_of_integer_kernels(tmp_path, mixed):
    source, data, _ = mixed
    made = apply("quantize-static", source, tmp_path, data)

    assert "MatMul" not in fused_ops(made, tmp_path)
