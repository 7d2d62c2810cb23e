"""Static int8: integer kernels, evenly chosen samples, and constant memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from textwrap import dedent

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgekit.data.subsets import select_spread
from edgekit.errors import PassRefused
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.runtimes import Tensor
from tests.builders.tiny import apply, fused_ops, model, normal, run, samples, sqnr_db, uniform

BLOCK = (
    "g (float[N,3,16,16] x) => (float[N,10] y) { "
    "c = Conv<pads = [1,1,1,1]>(x, w0, b0) r = Relu(c) d = Conv<pads = [1,1,1,1]>(r, w1, b1) "
    "s = Add(d, r) t = Relu(s) p = GlobalAveragePool(t) f = Flatten(p) "
    "y = Gemm<transB = 1>(f, v, k) }"
)
BLOCK_WEIGHTS = {
    "w0": normal(8, 3, 3, 3, scale=0.3),
    "b0": normal(8),
    "w1": normal(8, 8, 3, 3, scale=0.1),
    "b1": normal(8),
    "v": normal(10, 8),
    "k": normal(10),
}


def test_a_residual_block_runs_in_integer_kernels_from_end_to_end(tmp_path):
    source = model(tmp_path, BLOCK, weights=BLOCK_WEIGHTS)
    x = uniform(16, 3, 16, 16)
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, x=x))

    found = Counter(fused_ops(made, tmp_path))

    assert found["QLinearConv"] == 2
    assert found["QLinearAdd"] == found["QGemm"] == found["QLinearGlobalAveragePool"] == 1
    assert not set(found) & {"Conv", "Gemm", "MatMul", "Add", "Relu", "GlobalAveragePool"}
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 25


def test_a_clipped_activation_is_absorbed(tmp_path):
    text = (
        "g (float[N,3,8,8] x) => (float[N,4,6,6] y) "
        "{ h = Conv(x, w) c = Clip(h, low, high) y = Conv(c, v) }"
    )
    weights = {
        "w": normal(4, 3, 3, 3, scale=4),
        "v": normal(4, 4, 1, 1),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    source = model(tmp_path, text, weights=weights)
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, x=uniform(8, 3, 8, 8)))

    assert not set(fused_ops(made, tmp_path)) & {"Clip", "Conv"}


BETWEEN = {
    "nearest resize, concat": (
        "r = Relu(c) p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r) "
        'm = Resize<mode = "nearest">(p, , sizes) k = Concat<axis = 1>(m, r)',
        {"sizes": np.array([1, 1, 2, 2], np.float32)},
        [],
    ),
    "linear resize, concat": (
        "r = Relu(c) p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r) "
        'm = Resize<mode = "linear">(p, , sizes) k = Concat<axis = 1>(m, r)',
        {"sizes": np.array([1, 1, 2, 2], np.float32)},
        ["Resize"],
    ),
    "split, concat": (
        "r = Relu(c) p, q = Split<axis = 1>(r, parts) k = Concat<axis = 1>(q, p, r)",
        {"parts": np.array([4, 4])},
        [],
    ),
    "pad, concat": (
        "r = Relu(c) m = Pad(r, pads) p = MaxPool<kernel_shape = [3,3]>(m) "
        "k = Concat<axis = 1>(p, r)",
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["Pad"],
    ),
    "swish": ("s = Sigmoid(c) m = Mul(c, s) k = Concat<axis = 1>(m, c)", {}, []),
    "hard swish and its gate": (
        "h = HardSwish(c) g = GlobalAveragePool(h) f = Conv(g, q) e = HardSigmoid(f) "
        "m = Mul(h, e) k = Concat<axis = 1>(m, h)",
        {"q": normal(8, 8, 1, 1)},
        ["HardSigmoid", "HardSigmoid"],
    ),
    "a sum of a value before and after its activation": (
        "r = Relu(c) s = Add(r, c) k = Concat<axis = 1>(s, c)",
        {},
        [],
    ),
}
KERNELS = {
    "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearConcat", "QLinearAdd",
    "QLinearMul", "QLinearSigmoid", "QLinearGlobalAveragePool", "NhwcMaxPool", "Transpose",
}  # fmt: skip


@pytest.mark.parametrize("kind", BETWEEN)
def test_between_two_convolutions_everything_is_8_bit_if_possible(tmp_path, kind):
    body, weights, in_float = BETWEEN[kind]
    text = (
        "g (float[1,8,16,16] x) => (float[1,8,16,16] y) "
        f"{{ c = Conv(x, w, b) {body} y = Conv(k, v) }}"
    )
    shared = {"w": normal(8, 8, 1, 1, scale=0.3), "b": normal(8), "v": normal(8, 16, 1, 1)}
    source = model(tmp_path, text, weights=shared | weights)
    x = uniform(8, 8, 16, 16)
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, x=x))

    found = fused_ops(made, tmp_path)

    moved = {"Resize", "Split"} - set(in_float)
    assert sorted(op for op in found if op not in KERNELS | moved) == sorted(in_float)
    # One pair around each float operator or chain of them, and the edges of the graph.
    assert found.count("QuantizeLinear") <= 1 + len(in_float) + (kind.startswith("a sum"))
    assert sqnr_db(run(source, x=x[:1])[0], run(made, x=x[:1])[0]) > 25


@given(
    st.sampled_from([(2, 6), (1, 8), (4, 4)]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.floats(1e-4, 1e4),
    st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_convolution_stays_close_to_float(
    tmp_path, channels, group, stride, dilation, biased, scale, seed
):
    into, out = channels
    assume(into % group == 0 and out % group == 0)
    text = (
        f"g (float[N,{into},9,9] x) => (y) {{ y = Conv<group = {group}, "
        f"strides = [{stride},{stride}], dilations = [{dilation},{dilation}]>"
        f"(x, w{', b' if biased else ''}) }}"
    )
    weights = {"w": normal(out, into // group, 3, 3, seed=seed, scale=scale)}
    if biased:
        weights["b"] = normal(out, seed=seed + 1, scale=scale)
    source = model(tmp_path, text, weights=weights)
    x = uniform(4, into, 9, 9, seed=seed)
    data = samples(tmp_path, x=x)
    made = apply("quantize-static", source, tmp_path, data, ranges="minmax", bias_correction=False)

    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 25


@pytest.mark.parametrize("ranges", ["auto", "minmax", "average", "percentile", "entropy", "mse"])
def test_every_kind_of_range_stays_close_to_float(tmp_path, ranges):
    source = model(tmp_path, BLOCK, weights=BLOCK_WEIGHTS)
    x = uniform(16, 3, 16, 16)
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, x=x), ranges=ranges)

    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 25


def test_a_shared_weight_is_stored_once_where_its_scales_are_the_same(tmp_path):
    text = "g (float[N,64] x) => (float[N,64] y) { p = MatMul(x, w) y = MatMul(p, w) }"
    source = model(tmp_path, text, weights={"w": normal(64, 64, scale=0.1)})
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, x=uniform(8, 64)))

    stored = [numpy_helper.to_array(t) for t in onnx.load(str(made.path)).graph.initializer]
    assert sum(array.size == 64 * 64 for array in stored) == 1
    assert made.bytes < source.bytes / 3


def test_a_value_that_is_not_finite_on_the_samples_is_refused_by_name(tmp_path):
    text = "g (float[N,4] x) => (float[N,3] y) { logarithm = Log(x) y = MatMul(logarithm, w) }"
    source = model(tmp_path, text, weights={"w": normal(4, 3)})
    data = samples(tmp_path, x=np.zeros((4, 4), np.float32))

    with pytest.raises(PassRefused, match="activation logarithm is not finite"):
        apply("quantize-static", source, tmp_path, data)


def test_a_split_that_is_sorted_by_class_is_sampled_from_all_over(tmp_path):
    x = np.arange(1000, dtype=np.float32)[:, None]
    parts = select_spread(samples(tmp_path, x=x), 100)

    tensor = Tensor("x", "float32", ("N", 1))
    read = [float(b.inputs["x"].item()) for part in parts for b in iter_batches(part, [tensor], 1)]

    assert len(read) == len(set(read)) == 100
    for start in range(0, 1000, 100):
        assert any(start <= value < start + 100 for value in read)


def test_a_split_that_is_small_enough_is_read_whole(tmp_path):
    whole = samples(tmp_path, x=uniform(20, 1))

    assert select_spread(whole, 20) == [whole]


MEASURE = """
    import sys
    from pathlib import Path
    from edgekit.data.dataset import open_dataset
    from tests.builders.tiny import apply, model, normal

    folder, data = Path(sys.argv[1]), sys.argv[2]
    widths = (3, 16, 32, 32)
    names = [f"w{i}" for i in range(3)]
    weights = {n: normal(widths[i + 1], widths[i], 3, 3, scale=0.2) for i, n in enumerate(names)}
    layers = " ".join(
        f"c{i} = Conv<pads = [1,1,1,1]>(r{i}, {n}) r{i + 1} = Relu(c{i})"
        for i, n in enumerate(names)
    )
    text = "g (float[N,3,32,32] r0) => (float[N,32,1,1] y) { BODY y = GlobalAveragePool(r3) }"
    source = model(folder, text.replace("BODY", layers), weights=weights)
    split = open_dataset(data, source.signature, folder=folder, cache=folder, targets="none")
    apply("quantize-static", source, folder, split.samples)
    print(Path("/proc/self/status").read_text())
"""


def peak_kib(folder, count):
    folder.mkdir()
    np.savez_compressed(folder / "calib.npz", r0=uniform(count, 3, 32, 32))
    command = [sys.executable, "-c", dedent(MEASURE), str(folder), "calib.npz"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(re.search(r"VmHWM:\s+(\d+) kB", said)[1])


def test_six_times_the_samples_take_no_more_memory(tmp_path):
    few, many = peak_kib(tmp_path / "few", 64), peak_kib(tmp_path / "many", 384)

    assert many < 1.10 * few
