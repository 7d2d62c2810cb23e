"""The few layers whose quantization costs most accuracy stay float, and no others."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest

from edgekit.compression.checks.output_errors import OutputErrors
from edgekit.compression.checks.sample_folds import fold_samples
from edgekit.compression.pass_specs import build_step
from edgekit.compression.quantization.affine import compute_unsigned_affine
from edgekit.compression.quantization.calibration.tensor_errors import measure_tensor_errors
from edgekit.compression.quantization.float_layers import Costs, choose_float_layers, find_costs
from edgekit.compression.quantization.refinements import Refiner
from edgekit.compression.step_runner import run_checked
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import load
from edgekit.onnx_graph.qdq_placement import plan_placement
from edgekit.onnx_graph.runs.weight_offload import copy_without_weights, offload
from edgekit.pass_settings import Float16, QuantizeStatic, QuantizeWeights, ToTflite
from tests.builders.tiny import fused_ops, model, normal, run, samples, sqnr_db, uniform, work

# A stem whose first channel is huge, behind an activation function through which scales cannot
# be moved; then layers without any peculiarity.
STEM = (
    "c0 = Conv<pads = [1,1,1,1]>(x, w0, b0) s0 = Sigmoid(c0) r0 = Mul(c0, s0) "
    "c1 = Conv(r0, w1) s1 = Sigmoid(c1) r1 = Mul(c1, s1) "
)
DEEPER = "c{n} = Conv<pads = [1,1,1,1]>(r{m}, w{n}) s{n} = Sigmoid(c{n}) r{n} = Mul(c{n}, s{n}) "
DEPTH = 10


def network(folder, *, huge):
    body = STEM + "".join(DEEPER.format(n=n, m=n - 1) for n in range(2, DEPTH))
    text = f"g (float[N,3,8,8] x) => (float[N,8,8,8] y) {{ {body} y = Conv(r{DEPTH - 1}, last) }}"
    weights = {f"w{n}": normal(24, 24, 3, 3, seed=n, scale=0.12) for n in range(2, DEPTH)}
    weights |= {
        "w1": normal(24, 24, 1, 1, seed=1, scale=0.3),
        "w0": normal(24, 3, 3, 3),
        "b0": normal(24),
        "last": normal(8, 24, 1, 1, seed=99),
    }
    if huge:
        weights["w0"][0] *= 300
        weights["b0"][0] *= 300
        weights["w1"][:, 0] /= 300
    return model(folder, text, weights=weights)


def lite_run(made, x):
    """What a .tflite file makes of one batch, which it takes with channels first or last."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(made.path))
    interpreter.allocate_tensors()
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(output["index"])


def quantize(source, folder, count, **settings):
    desk = work(folder, samples(folder, x=uniform(count, 3, 8, 8)))
    made = run_checked(build_step(QuantizeStatic(weight_bits=8, **settings)), source, desk)
    return made.model, desk.notes


@pytest.mark.parametrize("count", [32, 80])
def test_a_layer_whose_range_ruins_the_outputs_stays_float_with_a_note(tmp_path, count):
    source, x = network(tmp_path, huge=True), uniform(16, 3, 8, 8, seed=7)
    before = run(source, x=x)[0]

    made, notes = quantize(source, tmp_path, count)
    plain, _ = quantize(source, tmp_path, count, float_layers="none")

    found = Counter(fused_ops(made, tmp_path))
    assert 1 <= found["Conv"] <= 3
    assert found["QLinearConv"] >= DEPTH - 2
    assert sqnr_db(before, run(made, x=x)[0]) > sqnr_db(before, run(plain, x=x)[0]) + 8
    (note,) = [note for note in notes if "stay float" in note]
    assert f"of {DEPTH + 1} layers" in note


def test_layers_stay_float_only_if_no_version_in_8_bits_is_about_as_accurate(tmp_path):
    source, desk = network(tmp_path, huge=True), work(tmp_path)
    proto = load(source.path)
    offload(proto, lean := copy_without_weights(proto), desk.scratch)
    index = GraphIndex(lean, desk.scratch)
    folds = fold_samples(samples(tmp_path, x=uniform(80, 3, 8, 8)), 64)
    refiner = Refiner(index, QuantizeStatic(), desk, folds, 127)
    _, version = refiner.refine()
    assert version.in_float

    # Min-max ranges without layers in float are measured as nearly as accurate.
    in_float = [errors for (_, nodes), errors in refiner.known.items() if nodes]
    best = min(in_float, key=lambda each: each.total)
    near = OutputErrors(error=1.05 * best.error, size=best.size)
    refiner.known["minmax", frozenset()] = near
    _, version = refiner.refine()
    assert not version.in_float


@pytest.mark.parametrize(
    "before",
    [QuantizeWeights(bits=8.0, allocation="uniform"), Float16()],
    ids=["weights", "float16"],
)
def test_layers_keep_their_original_names_through_earlier_passes(tmp_path, before):
    source = network(tmp_path, huge=True)
    desk = work(tmp_path, samples(tmp_path, x=uniform(32, 3, 8, 8)))
    first = run_checked(build_step(before), source, desk)

    _, notes = quantize(first.model, tmp_path, 32)

    (note,) = [note for note in notes if "stay float" in note]
    named = note.rpartition(": ")[2].split(", ")
    assert set(named) <= {*(f"c{n}" for n in range(DEPTH)), "y"}


@pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed")
def test_a_tflite_file_keeps_these_layers_in_float_and_notes_their_number(tmp_path):
    source, x = network(tmp_path, huge=True), uniform(1, 3, 8, 8, seed=7)
    made, _ = quantize(source, tmp_path, 32)
    in_float = Counter(fused_ops(made, tmp_path))["Conv"]
    desk = work(tmp_path, samples(tmp_path, x=uniform(32, 3, 8, 8)))

    lite = run_checked(build_step(ToTflite(dims=(("N", 1),))), made, desk).model

    assert f"{in_float} of {DEPTH + 1} layers stay in float, as in the ONNX file" in desk.notes
    floats = run(source, x=x)[0]
    assert sqnr_db(floats, lite_run(lite, x)) > sqnr_db(floats, run(made, x=x)[0]) - 3


@pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed")
def test_a_float_model_gets_no_note_about_float_layers(tmp_path):
    desk = work(tmp_path, samples(tmp_path, x=uniform(8, 3, 8, 8)))

    run_checked(build_step(ToTflite(dims=(("N", 1),))), network(tmp_path, huge=False), desk)

    assert not [note for note in desk.notes if "stay in float" in note]


def parts(folder, *, huge):
    source = network(folder, huge=huge)
    index = GraphIndex(load(source.path))
    placement = plan_placement(index)
    wide = {name: compute_unsigned_affine(-64, 64) for name in placement.values}
    return index, placement, wide, [samples(folder, x=uniform(2, 3, 8, 8))]


def test_the_tensor_that_makes_the_error_is_found(tmp_path):
    index, placement, parameters, judging = parts(tmp_path, huge=False)
    parameters["r4"] = compute_unsigned_affine(-64, 9000)

    errors = measure_tensor_errors(
        index, placement, parameters, largest=127, judging=judging, tick=lambda *_: None
    )

    assert max(errors, key=errors.__getitem__) == "r4"
    assert set(errors) == {w.weight for w in placement.weighted} | set(placement.values)
    assert errors["r4"] > 0.8 * sum(errors.values())


def test_a_float_tensor_moves_the_nodes_around_it_to_float(tmp_path):
    index, placement, _, _ = parts(tmp_path, huge=False)
    costs = Costs(work={w.node.output[0]: 0.09 for w in placement.weighted}, weights={})
    errors = dict.fromkeys(placement.values, 1e-4) | {"r4": 1.0}

    (nodes, *_) = choose_float_layers(index, placement, errors, costs)

    assert nodes == {"c5"}
    assert "r4" not in plan_placement(index, nodes).values


def test_no_more_than_a_fifth_of_the_arithmetic_stays_float(tmp_path):
    index, placement, _, _ = parts(tmp_path, huge=False)
    costs = find_costs(index, placement, dict.fromkeys(placement.values, 24 * 64))
    errors = dict.fromkeys(placement.values, 1e-4)
    errors |= {f"r{n}": 1.0 / (n + 1) for n in range(DEPTH)}

    for nodes in choose_float_layers(index, placement, errors, costs):
        assert sum(costs.work.get(name, 0) for name in nodes) <= 0.2


def test_a_small_error_moves_no_layer_to_float(tmp_path):
    index, placement, _, _ = parts(tmp_path, huge=False)
    costs = find_costs(index, placement, dict.fromkeys(placement.values, 24 * 64))
    errors = dict.fromkeys(placement.values, 0.0) | {"r4": 9e-4}

    assert choose_float_layers(index, placement, errors, costs) == []
    assert np.isclose(sum(costs.work.values()), 1)


def test_nothing_stays_float_where_no_layer_stands_out(tmp_path):
    index, placement, _, _ = parts(tmp_path, huge=False)
    costs = Costs(work={w.node.output[0]: 0.09 for w in placement.weighted}, weights={})
    tensors = [*placement.values, *(w.weight for w in placement.weighted)]

    assert choose_float_layers(index, placement, dict.fromkeys(tensors, 0.1), costs) == []


def test_weights_that_stay_float_are_few(tmp_path):
    index, placement, _, _ = parts(tmp_path, huge=False)
    names = [w.node.output[0] for w in placement.weighted]
    costs = Costs(work=dict.fromkeys(names, 0.01), weights=dict.fromkeys(names, 0.09))
    errors = dict.fromkeys(placement.values, 1e-4) | {"r4": 1.0}

    assert choose_float_layers(index, placement, errors, costs) == []
