"""Large weights that stay float after quantization are noted once, with the reason."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_checked
from edgekit.pass_settings import QuantizeDynamic, QuantizeStatic
from tests.builders.tiny import model, normal, samples, work

IDS = np.arange(64).reshape(16, 4)
COLUMNS = (
    "g (int64[N,4] i) => (float[N,4,64] z)"
    " { e = Gather<axis = 1>(t, i) r = Transpose<perm = [1, 2, 0]>(e) z = MatMul(r, u) }"
)
ADDED = "g (float[N,64,64] x) => (float[N,64,64] y) { h = Add(x, t) y = MatMul(h, u) }"
PLAIN = "g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, u) }"
CASES = {
    "gathered by columns": (
        COLUMNS,
        {"t": normal(64, 100), "u": normal(64, 64)},
        {"i": IDS},
        "t (Gather, 64 x 100) is gathered along axis 1, not along axis 0",
    ),
    "added": (
        ADDED,
        {"t": normal(1, 64, 64), "u": normal(64, 64)},
        {"x": normal(16, 64, 64)},
        "t (1 x 64 x 64) is read by Add",
    ),
}


@pytest.mark.parametrize("settings", [QuantizeStatic(), QuantizeDynamic()])
@pytest.mark.parametrize("case", CASES)
def test_a_large_weight_that_stays_float_is_noted_with_the_reason(tmp_path, case, settings):
    text, weights, arrays, reason = CASES[case]
    source = model(tmp_path, text, weights=weights)

    found = run_checked(build_step(settings), source, work(tmp_path, samples(tmp_path, **arrays)))

    told = [note for note in found.notes if note.startswith("weights stay float")]
    assert told == [f"weights stay float: {reason}"]


@pytest.mark.parametrize("settings", [QuantizeStatic(), QuantizeDynamic()])
def test_a_model_that_is_quantized_whole_has_no_such_note(tmp_path, settings):
    source = model(tmp_path, PLAIN, weights={"u": normal(64, 64)})
    data = samples(tmp_path, x=normal(16, 64))

    found = run_checked(build_step(settings), source, work(tmp_path, data))

    assert "stay float" not in " ".join(found.notes)


def test_a_convolution_that_the_pass_leaves_is_noted_once(tmp_path):
    text = (
        "g (float[N,16,8,8] x) => (float[N,64] y)"
        " { c = Conv(x, t) m = GlobalAveragePool(c) f = Flatten(m) y = MatMul(f, u) }"
    )
    weights = {"t": normal(64, 16, 3, 3), "u": normal(64, 64)}
    source = model(tmp_path, text, weights=weights)
    data = samples(tmp_path, x=normal(16, 16, 8, 8))

    found = run_checked(build_step(QuantizeDynamic()), source, work(tmp_path, data))

    assert sum("convolutions" in note for note in found.notes) == 1
    assert not any(note.startswith("weights stay float") for note in found.notes)
