"""Recurrent layers compute with integers if that is accurate and not slower."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit.compression.pass_specs import PASSES
from edgekit.compression.quantization.lstm_trials import measure_time_ratio
from edgekit.compression.step_runner import run_step
from edgekit.recipe import Step
from tests.builders.tiny import model, normal, ops, run, samples, sqnr_db, uniform, work

STEPS, UNITS, INPUTS = 20, 96, 16


def run_and_read_notes(name, source, folder, calibration=None):
    """Run a pass; return its result and its notes."""
    spec = PASSES[name]
    its = work(folder, calibration)
    made = run_step(Step(name=name, version=spec.version, settings=spec.settings()), source, its)
    return made, its.notes


def two_lstms(folder, first_scale):
    """Build a model in which the second LSTM reads the first one."""
    text = (
        f"g (float[N,{STEPS},{INPUTS}] x) => (float[N,{STEPS},{UNITS}] y) "
        "{ t = Transpose<perm = [1,0,2]>(x) "
        f"a, ah, ac = LSTM<hidden_size = {UNITS}>(t, aw, ar, ab) s = Squeeze(a, one) "
        f"b, bh, bc = LSTM<hidden_size = {UNITS}>(s, bw, br, bb) u = Squeeze(b, one) "
        "y = Transpose<perm = [1,0,2]>(u) }"
    )
    weights = {
        "aw": normal(1, 4 * UNITS, INPUTS, scale=first_scale),
        "ar": normal(1, 4 * UNITS, UNITS, seed=1, scale=0.1),
        "ab": normal(1, 8 * UNITS, seed=2, scale=0.1),
        "bw": normal(1, 4 * UNITS, UNITS, seed=3, scale=0.2),
        "br": normal(1, 4 * UNITS, UNITS, seed=4, scale=0.1),
        "bb": normal(1, 8 * UNITS, seed=5, scale=0.1),
        "one": np.array([1]),
    }
    return model(folder, text, weights=weights)


def spectra(count, seed=0):
    """Power spectra without a logarithm: one loud step, and quiet ones that tell of the rest."""
    quiet = np.abs(normal(count, STEPS, INPUTS, seed=seed)) * np.float32(1e-2)
    quiet[:, 0, 0] = 30.0
    return quiet


@pytest.mark.parametrize("name", ["quantize-static", "quantize-dynamic"])
def test_an_lstm_whose_input_8_bits_cannot_hold_multiplies_in_float(tmp_path, name):
    source = two_lstms(tmp_path, first_scale=20.0)
    made, notes = run_and_read_notes(name, source, tmp_path, samples(tmp_path, x=spectra(32)))

    kinds = [kind for kind in ops(made) if "LSTM" in kind]
    assert kinds == ["LSTM", "DynamicQuantizeLSTM"]
    x = spectra(8, seed=7)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 26
    assert made.bytes < 0.4 * source.bytes
    assert any(
        "computed in float" in note and "with 8-bit inputs, output y" in note for note in notes
    )


def test_both_lstms_multiply_integers_where_their_inputs_allow_it(tmp_path):
    source = two_lstms(tmp_path, first_scale=0.3)
    data = samples(tmp_path, x=uniform(32, STEPS, INPUTS))
    made, notes = run_and_read_notes("quantize-static", source, tmp_path, data)
    assert ops(made).count("DynamicQuantizeLSTM") == 2
    x = uniform(8, STEPS, INPUTS, seed=7)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 26
    assert not any("computed in float" in note for note in notes)


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_weights_too_sensitive_for_8_bits_get_16(tmp_path, kind):
    gates = {"GRU": 3, "RNN": 1}[kind]
    text = (
        f"g (float[N,{STEPS},{INPUTS}] x) => (float[1,N,{UNITS}] h) "
        f"{{ t = Transpose<perm = [1,0,2]>(x) a, h = {kind}<hidden_size = {UNITS}>(t, w, r) }}"
    )
    # A large weight of an input that is quiet, and small ones of one that is loud.
    weight = normal(1, gates * UNITS, INPUTS, scale=0.3)
    weight[..., 0] *= 3000
    weights = {"w": weight, "r": normal(1, gates * UNITS, UNITS, seed=1, scale=0.05)}
    x = uniform(32, STEPS, INPUTS)
    x[..., 0] *= 1e-4
    source = model(tmp_path, text, weights=weights)
    made, notes = run_and_read_notes("quantize-dynamic", source, tmp_path, samples(tmp_path, x=x))

    stored = {t.data_type for t in onnx.load(str(made.path)).graph.initializer}
    assert {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8} <= stored
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 30
    assert any("input weights are stored in 16 bits" in note for note in notes)


def test_without_samples_a_note_says_that_nothing_was_measured(tmp_path):
    made, notes = run_and_read_notes(
        "quantize-dynamic", two_lstms(tmp_path, first_scale=0.3), tmp_path
    )
    assert ops(made).count("DynamicQuantizeLSTM") == 2
    assert any("--data CALIB" in note for note in notes)


@pytest.mark.parametrize("ratios", [(0.5, 3.0), (3.0, 0.5)])
def test_lstms_that_share_weights_compute_alike_so_that_these_are_stored_once(
    tmp_path, monkeypatch, ratios
):
    text = (
        f"g (float[N,{STEPS},{UNITS}] x) => (float[{STEPS},N,{UNITS}] y) "
        "{ t = Transpose<perm = [1,0,2]>(x) "
        f"a, ah, ac = LSTM<hidden_size = {UNITS}>(t, w, r, b) s = Squeeze(a, one) "
        f"c, ch, cc = LSTM<hidden_size = {UNITS}>(s, w, r, b) y = Squeeze(c, one) }}"
    )
    weights = {
        "w": normal(1, 4 * UNITS, UNITS, scale=0.1),
        "r": normal(1, 4 * UNITS, UNITS, seed=1, scale=0.1),
        "b": normal(1, 8 * UNITS, seed=2, scale=0.1),
        "one": np.array([1]),
    }
    source = model(tmp_path, text, weights=weights)
    times = iter(ratios)
    monkeypatch.setattr(
        "edgekit.compression.quantization.lstm_trials.measure_time_ratio", lambda *_: next(times)
    )
    data = samples(tmp_path, x=uniform(32, STEPS, UNITS))
    made, notes = run_and_read_notes("quantize-dynamic", source, tmp_path, data)

    assert "DynamicQuantizeLSTM" not in ops(made)
    assert made.bytes < 0.3 * source.bytes
    assert any("shares weights with" in note for note in notes)


def test_times_are_compared_in_turn():
    def work_of(size):
        values = normal(size, size)
        return lambda: np.sin(values)  # on one thread, as models are timed

    assert measure_time_ratio(work_of(64), work_of(256)) > 3
    assert measure_time_ratio(work_of(256), work_of(64)) < 0.5
    told = []
    assert 0.5 < measure_time_ratio(work_of(128), work_of(128), lambda *each: told.append(each)) < 2
    assert [done for done, _ in told] == list(range(told[0][1]))
