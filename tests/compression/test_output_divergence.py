"""The divergence of outputs counts every part, and logits as distributions."""

from __future__ import annotations

import pytest

from edgekit.compression.output_divergence import Reference
from tests.builders.tiny import normal, proto, samples

JOINED = """
g (float[N,8] x) => (float[N,2,6] y) {
  box = MatMul(x, a)
  logit = MatMul(x, b)
  score = Sigmoid(logit)
  joined = Concat<axis = 1>(box, score)
  y = Reshape(joined, shape)
}
"""


def join(*, scale=1.0, box=1.0, score=1.0):
    weights = {"a": scale * box * normal(8, 4), "b": score * normal(8, 8, seed=1)}
    return proto(JOINED, weights=weights | {"shape": [-1, 2, 6]})


def test_parts_of_different_size_count_alike_in_one_output(tmp_path):
    data = [samples(tmp_path, x=normal(16, 8))]
    for scale in (0.01, 1, 1000):
        reference = Reference(join(scale=scale), data)
        of_boxes = reference.divergence(join(scale=scale, box=1.1))
        of_scores = reference.divergence(join(scale=scale, score=1.1))
        assert of_boxes == pytest.approx(0.01 / 2, rel=0.2)
        assert of_scores == pytest.approx(0.01 / 2, rel=0.2)


def test_a_graph_with_other_parts_is_compared_by_the_whole_output(tmp_path):
    data = [samples(tmp_path, x=normal(16, 8))]
    other = proto(
        "g (float[N,8] x) => (float[N,2,6] y) { both = MatMul(x, c) y = Reshape(both, shape) }",
        weights={"c": normal(8, 12), "shape": [-1, 2, 6]},
    )
    assert 0 < Reference(join(), data).divergence(other) < 100


def scores(factor, *, rank):
    more = {"w": factor * normal(8, 5)}
    dims = {2: "N,8", 3: "N,1,8"}[rank]
    text = f"g (float[{dims}] x) => (y) {{ h = MatMul(x, w) y = Softmax(h) }}"
    return proto(text, weights=more)


def test_scores_of_a_sequence_diverge_as_those_of_a_single_row_do(tmp_path):
    x = normal(16, 8)
    found = {}
    for rank, rows in ((2, x), (3, x[:, None])):
        data = [samples(tmp_path, x=rows)]
        found[rank] = Reference(scores(1, rank=rank), data).divergence(scores(1.3, rank=rank))
    assert found[3] == pytest.approx(found[2], rel=1e-4)


def two_heads(*, large=1.0, small=1.0):
    text = "g (float[N,8] x) => (float[N,5] a, float[N,5] b) { a = MatMul(x, l) b = MatMul(x, s) }"
    return proto(text, weights={"l": large * normal(8, 5), "s": small * normal(8, 5, seed=1)})


@pytest.mark.parametrize(("large", "small"), [(1e4, 1e-6), (1e4, 1.0), (0.1, 1e-9), (0.1, 0.01)])
def test_outputs_of_two_axes_count_whatever_their_scale(tmp_path, large, small):
    data = [samples(tmp_path, x=normal(16, 8))]
    reference = Reference(two_heads(large=large, small=small), data)
    for changed in ({"large": 1.1 * large, "small": small}, {"large": large, "small": 1.1 * small}):
        assert 0.002 < reference.divergence(two_heads(**changed)) < 0.05
