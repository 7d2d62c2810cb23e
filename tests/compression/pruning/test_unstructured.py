"""Unstructured pruning: the requested sparsity, refitted weights, and later passes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.bundle.layer_report import read_layers
from edgekit.compression.checks.contracts import check_store, get_promise
from edgekit.compression.pass_specs import PASSES, PassSpec
from edgekit.compression.pruning.mask_solver import (
    LayerObjective,
    PatternRule,
    ShareRule,
    prune_by_magnitude,
    prune_matrix,
)
from edgekit.compression.step_runner import run_step
from edgekit.errors import PassError, PassRefused
from edgekit.onnx_graph.weight_stats import read_storage_stats
from edgekit.pass_settings import PruneWeights
from edgekit.pipeline.transfer_size import compute_transfer_bytes
from edgekit.recipe import Step
from tests.builders.all_graphs import QUANTIZABLE
from tests.builders.separable import network, weights
from tests.builders.tiny import apply, model, normal, run, samples, sqnr_db, uniform, work

NETWORK, WEIGHTS = network(4, 10), weights(4)
LAYERS = ("w0", "w1", "w2", "v")
UNSEEN = uniform(64, 4, 10, 10, seed=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prune")


@pytest.fixture(scope="module")
def source(folder):
    return model(folder, NETWORK, weights=WEIGHTS)


@pytest.fixture(scope="module")
def given(folder):
    return samples(folder, x=uniform(64, 4, 10, 10))


def list_stored(made):
    """The tensors of a file, by name."""
    graph = onnx.load(str(made.path)).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def part_of_zeros(arrays):
    arrays = list(arrays)
    return sum((a == 0).sum() for a in arrays) / sum(a.size for a in arrays)


def zeros(made):
    arrays = list_stored(made)
    return part_of_zeros(arrays[name] for name in LAYERS)


@pytest.mark.parametrize("allocation", ["measured", "uniform"])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8])
def test_as_many_weights_are_zero_as_were_asked_for(folder, source, given, sparsity, allocation):
    made = apply("prune-weights", source, folder, given, sparsity=sparsity, allocation=allocation)

    assert sparsity - 1e-9 <= zeros(made) < sparsity + 0.05


def test_remaining_weights_compensate_the_removed_ones(folder, source, given):
    expected = run(source, x=UNSEEN)[0]
    how = {"sparsity": 0.5, "allocation": "uniform"}
    quality = [
        sqnr_db(
            expected,
            run(apply("prune-weights", source, folder, given, score=s, **how), x=UNSEEN)[0],
        )
        for s in ("magnitude", "second-order")
    ]

    assert quality[1] > quality[0] + 6


def test_measured_sparsities_are_more_accurate_than_uniform_ones(folder):
    text = (
        "g (float[N,64] x) => (float[N,8] y) { "
        "h = MatMul(x, a) r = Relu(h) s = MatMul(r, b) t = Relu(s) y = MatMul(t, c) }"
    )
    spare = normal(64, 128, seed=1)
    spare[:, 16:] *= 0.01  # most of what the first layer makes hardly counts
    weights = {"a": spare, "b": normal(128, 64, seed=2), "c": normal(64, 8, seed=3)}
    wide = model(folder, text, weights=weights)
    some = samples(folder, x=uniform(256, 64))
    unseen = uniform(64, 64, seed=9)
    quality = [
        sqnr_db(
            run(wide, x=unseen)[0],
            run(apply("prune-weights", wide, folder, some, sparsity=0.5, allocation=how), x=unseen)[
                0
            ],
        )
        for how in ("uniform", "measured")
    ]

    assert quality[1] > quality[0] + 3


@pytest.mark.parametrize(
    ("pattern", "kept", "block"), [("2:4", 2, 4), ("1:2", 1, 2), ("4:8", 4, 8)]
)
def test_n_of_m_inputs_are_kept_where_the_pattern_fits(folder, source, given, pattern, kept, block):
    arrays = list_stored(apply("prune-weights", source, folder, given, pattern=pattern))

    for name in LAYERS:
        rows = arrays[name].reshape(arrays[name].shape[0], -1)
        if rows.shape[1] % block:
            assert np.array_equal(arrays[name], WEIGHTS[name])
        else:
            assert ((rows.reshape(-1, block) != 0).sum(axis=1) <= kept).all()
            assert part_of_zeros([rows]) == pytest.approx(1 - kept / block, abs=0.01)


def test_a_pattern_runs_along_the_inputs_of_a_product(folder):
    text = "g (float[N,16] x) => (float[N,6] y) { y = MatMul(x, w) }"
    plain = model(folder, text, weights={"w": normal(16, 6)})
    made = apply("prune-weights", plain, folder, samples(folder, x=uniform(64, 16)), pattern="2:4")

    assert ((list_stored(made)["w"].reshape(4, 4, 6) != 0).sum(axis=1) == 2).all()


@pytest.mark.parametrize("then", ["quantize-static", "quantize-dynamic"])
def test_zeros_stay_zeros_in_8_bits(folder, then):
    text = "g (float[N,96] x) => (float[N,16] y) { h = Gemm(x, a, b) r = Relu(h) y = MatMul(r, c) }"
    weights = {"a": normal(96, 64), "b": normal(64), "c": normal(64, 16)}
    wide = model(folder, text, weights=weights)
    some = samples(folder, x=uniform(64, 96))
    thin = apply("prune-weights", wide, folder, some, sparsity=0.7)
    dense, sparse = (apply(then, each, folder, some) for each in (wide, thin))

    integers = [a for a in list_stored(sparse).values() if a.dtype == np.int8 and a.ndim == 2]
    assert part_of_zeros(integers) >= 0.7
    first, second = (compute_transfer_bytes(each.path.read_bytes()) for each in (dense, sparse))
    assert second < 0.65 * first


def test_a_sparse_float_file_has_a_smaller_download(folder):
    text = "g (float[N,128] x) => (float[N,64] y) { y = MatMul(x, w) }"
    wide = model(folder, text, weights={"w": normal(128, 64)})
    made = apply("prune-weights", wide, folder, samples(folder, x=uniform(64, 128)), sparsity=0.5)
    before, after = (compute_transfer_bytes(each.path.read_bytes()) for each in (wide, made))

    assert after < 0.65 * before


def test_the_smallest_entries_of_each_row_of_an_embedding_are_removed(folder):
    text = (
        "g (int64[N,6] ids) => (float[N,8] y) { "
        "r = Gather(table, ids) m = ReduceMean<axes = [1], keepdims = 0>(r) y = MatMul(m, w) }"
    )
    weights = {"table": normal(512, 32), "w": normal(32, 8)}
    words = model(folder, text, weights=weights)
    ids = np.random.default_rng(0).integers(0, 512, (64, 6))
    made = apply("prune-weights", words, folder, samples(folder, ids=ids), allocation="uniform")

    table = list_stored(made)["table"]
    assert ((table == 0).sum(axis=1) == 16).all()
    assert np.array_equal(table[table != 0], weights["table"][table != 0])
    left, gone = (
        np.abs(np.where(m, weights["table"], v)) for m, v in ((table != 0, 9), (table == 0, 0))
    )
    assert (gone.max(axis=1) <= left.min(axis=1)).all()


def test_the_layer_report_has_the_zeros_of_each_layer(folder, source, given):
    mine = work(folder, given)
    settings = PruneWeights(sparsity=0.6)
    made = run_step(Step(name="prune-weights", version=1, settings=settings), source, mine)
    costs, arrays = read_layers(mine.scratch), list_stored(made)

    assert {c.layer for c in costs} == set(LAYERS)
    for cost in costs:
        assert cost.zeros == pytest.approx(part_of_zeros([arrays[cost.layer]]))
        assert cost.bits == pytest.approx(32 * (1 - cost.zeros), abs=1)


# Their weights are read by several nodes or by inner graphs, or are outputs, or are zeros already.
NOT_PRUNABLE = {
    "several inputs and outputs, one weight",
    "one weight with a huge bias and a small one",
    "if that reads an outer weight",
    "loop that reads outer values and weights",
    "an output that is a weight",
    "a value without entries",
    "weights that are all zeros",
    "gemm with a bias that is computed",
}


def pruned_kind(folder, name):
    kind = QUANTIZABLE[name]
    source = model(folder, kind.text, weights=kind.weights, **kind.how)
    return apply("prune-weights", source, folder, samples(folder, **kind.inputs), sparsity=0.2)


@pytest.mark.parametrize("name", sorted(QUANTIZABLE.keys() - NOT_PRUNABLE))
def test_graphs_of_all_kinds_are_pruned(tmp_path, name):
    assert read_storage_stats(pruned_kind(tmp_path, name).path).zeros >= 0.19


@pytest.mark.parametrize("name", sorted(NOT_PRUNABLE))
def test_graphs_without_weights_of_their_own_are_refused(tmp_path, name):
    with pytest.raises(
        PassRefused, match=r"w .*is (shared by 2 nodes|also an output|read inside If)|already zero"
    ):
        pruned_kind(tmp_path, name)


# ---------------------------------------------------------------- refusals, and the runner's eye


def test_a_model_that_is_already_sparse_is_refused(folder, source, given):
    made = apply("prune-weights", source, folder, given, sparsity=0.5)
    with pytest.raises(
        PassRefused,
        match=r"5\d % of the weights are already zero; the setting sparsity asks for 30 %",
    ):
        apply("prune-weights", made, folder, given, sparsity=0.3)


def test_a_quantized_model_is_refused(folder, source, given):
    with pytest.raises(PassRefused, match="already quantized"):
        apply("prune-weights", apply("quantize-static", source, folder, given), folder, given)


def test_a_pattern_that_fits_no_layer_is_refused_with_the_inputs(folder):
    text = "g (float[N,3] x) => (float[N,5] y) { y = MatMul(x, w) }"
    odd = model(folder, text, weights={"w": normal(3, 5)})
    with pytest.raises(PassRefused, match=r"2:4 fits no layer.* multiple of 4,.*w has 3 inputs"):
        apply("prune-weights", odd, folder, samples(folder, x=uniform(16, 3)), pattern="2:4")


def test_a_pattern_and_a_sparsity_that_contradict_each_other_are_refused(folder, source, given):
    with pytest.raises(
        PassRefused, match=r"pattern 2:4 sets 50 % of a layer to zero, which contradicts"
    ):
        apply("prune-weights", source, folder, given, pattern="2:4", sparsity=0.8)
    made = apply("prune-weights", source, folder, given, pattern="1:4", sparsity=0.75)
    assert zeros(made) > 0.5


def test_a_model_without_weights_is_refused(folder):
    bare = model(folder, "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    with pytest.raises(PassRefused, match="nothing to prune: "):
        apply("prune-weights", bare, folder, samples(folder, x=uniform(16, 3)))


def test_samples_that_are_not_finite_are_refused(folder, source):
    broken = uniform(16, 4, 10, 10)
    broken[3] = np.nan
    with pytest.raises(PassRefused, match="x is not finite"):
        apply("prune-weights", source, folder, samples(folder, x=broken))


@pytest.mark.parametrize("count", [1, 64])
def test_constant_samples_still_give_valid_costs(tmp_path, count):
    dense = model(
        tmp_path,
        "g (float[N,32] x) => (float[N,10] y) "
        "{ h = MatMul(x, w) r = Relu(h) s = Gemm(r, u, b) t = Relu(s) y = Gemm(t, v, k) }",
        weights={"w": normal(32, 64), "u": normal(64, 48, seed=1), "b": normal(48)}
        | {"v": normal(48, 10, seed=2), "k": normal(10)},
    )
    mine = work(tmp_path, samples(tmp_path, x=np.ones((count, 32), np.float32)))
    made = run_step(Step(name="prune-weights", version=1, settings=PruneWeights()), dense, mine)

    assert all(cost.kl >= 0 and cost.zeros < 0.9 for cost in read_layers(mine.scratch))
    seen = np.ones((1, 32), np.float32)
    assert sqnr_db(run(dense, x=seen)[0], run(made, x=seen)[0]) > 60


def changes_one_weight(source, settings, work):
    made = onnx.load(str(source.path))
    tensor = next(t for t in made.graph.initializer if t.name == "v")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] = 0
    tensor.CopyFrom(numpy_helper.from_array(array, "v"))
    path = work.scratch / "one.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def test_a_pass_that_leaves_the_weights_dense_breaks_its_promise(
    folder, source, given, monkeypatch
):
    where = f"{__name__}:{changes_one_weight.__name__}"
    row = PassSpec(settings=PruneWeights, function=where, summary="for a test", version=1)
    monkeypatch.setitem(PASSES, "prune-weights", row)
    with pytest.raises(PassError, match=r"set too few weights to zero: \S+ % instead of 47.5 %"):
        apply("prune-weights", source, folder, given)


def test_a_pattern_promises_that_something_got_sparser(source):
    promise = get_promise(
        PASSES["prune-weights"], PruneWeights(pattern="2:4"), read_storage_stats(source.path)
    )
    same = read_storage_stats(source.path)
    assert any("to zero" in broken for broken in check_store(promise, same, same))


# ---------------------------------------------------------------- the method by itself


def an_aim(groups=1, outputs=24, inputs=48):
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(groups, inputs, inputs)) * rng.uniform(0.1, 2, inputs)
    x = rng.normal(size=(groups, 4 * inputs, inputs)) @ mixed
    hessian = x.transpose(0, 2, 1) @ x / (4 * inputs)
    weight = rng.normal(size=(groups, outputs, inputs))
    return LayerObjective(weight=weight, hessian=hessian, target=weight @ hessian)


def obs(aim, sparsity):
    """Optimal Brain Surgeon, greedily, one weight of a row at a time (Hassibi and Stork 1993)."""
    made = aim.weight[0].copy()
    for row in made:
        inverse = np.linalg.inv(aim.hessian[0])
        left = np.ones(len(row), bool)
        for _ in range(round(sparsity * len(row))):
            score = np.where(left, row**2 / np.maximum(np.diagonal(inverse), 1e-12), np.inf)
            j = int(score.argmin())
            row -= row[j] / inverse[j, j] * inverse[:, j]
            inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
            left[j] = False
            row[left] = 0
    return made[np.newaxis]


@pytest.mark.parametrize("sparsity", [0.5, 0.8])
def test_zeros_found_together_cost_no_more_than_those_of_greedy_obs(sparsity):
    aim = an_aim()
    ours = aim.error(prune_matrix(aim, ShareRule(sparsity=sparsity)))

    assert ours < 1.05 * aim.error(obs(aim, sparsity))
    assert ours < 0.5 * aim.error(prune_by_magnitude(aim.weight, ShareRule(sparsity=sparsity)))


def test_remaining_weights_are_the_least_squares_fit_on_the_mask():
    aim = an_aim(groups=3, outputs=4, inputs=9)
    made = prune_matrix(aim, PatternRule(kept=1, block=3))
    assert ((made.reshape(3, 4, 3, 3) != 0).sum(axis=-1) == 1).all()
    for weight, hessian, target in zip(made, aim.hessian, aim.target, strict=True):
        for row, wanted in zip(weight, target, strict=True):
            kept = np.flatnonzero(row)
            exact = np.linalg.solve(hessian[np.ix_(kept, kept)], wanted[kept])
            assert row[kept] == pytest.approx(exact, rel=1e-3, abs=1e-4)
