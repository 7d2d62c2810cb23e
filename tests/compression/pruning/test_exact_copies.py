"""Channels that are exact copies of others are removed without any error."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.pass_specs import PASSES
from edgekit.compression.step_runner import run_checked
from edgekit.recipe import Step
from tests.builders.tiny import model, samples, work
from tests.compression.test_half_precision import outputs, relative

WIDTH = 32
HALF = WIDTH // 2
_RANDOM = np.random.default_rng(7)


def normal(*shape, scale=0.2):
    return (_RANDOM.normal(size=shape) * scale).astype(np.float32)


def double(weight, axis):
    """Duplicate each channel of a weight along an axis."""
    return np.concatenate([weight, weight], axis=axis)


IMAGE = "float[N,3,9,9] x"
MAKER = {"m": double(normal(HALF, 3, 3, 3), 0), "n": double(normal(HALF), 0)}
MAKES = "h0 = Conv<pads = [1, 1, 1, 1]>(x, m, n) h = Relu(h0)"
LINE = {"m": double(normal(24, HALF), 1), "n": double(normal(HALF), 0)}
ON_LINES = "h0 = MatMul(x, m) h1 = Add(h0, n) h = Relu(h1)"
ALONG = {"m": double(normal(HALF, 3, 1), 0), "n": double(normal(HALF), 0)}
IMAGES = {"x": normal(48, 3, 9, 9, scale=1)}
TOKENS = {"x": normal(48, 6, 24, scale=1)}
BATCHED = {"x": normal(48, 4, 5, 24, scale=1)}
# Each: inputs and outputs as text, the graph, weights, and samples.
KINDS = {
    "transposed convolution": (
        IMAGE, "float[N,5,18,18] y", f"{MAKES} y = ConvTranspose<strides = [2, 2]>(h, w)",
        MAKER | {"w": normal(WIDTH, 5, 2, 2)}, IMAGES,
    ),
    "transposed convolution with pads, dilation and a bias": (
        IMAGE, "float[N,5,a,b] y",
        f"{MAKES} y = ConvTranspose<strides = [2, 3], pads = [1, 0, 0, 1], dilations = [2, 1],"
        " output_padding = [1, 1]>(h, w, v)",
        MAKER | {"w": normal(WIDTH, 5, 3, 4), "v": normal(5)}, IMAGES,
    ),
    "transposed convolution of one size": (
        IMAGE, "float[N,5,18,18] y",
        f'{MAKES} y = ConvTranspose<strides = [2, 2], auto_pad = "SAME_UPPER">(h, w)',
        MAKER | {"w": normal(WIDTH, 5, 3, 3)}, IMAGES,
    ),
    "transposed convolution of groups": (
        IMAGE, "float[N,6,18,18] y",
        f"{MAKES} y = ConvTranspose<strides = [2, 2], group = 2>(h, w)",
        MAKER | {"m": double(double(normal(HALF // 2, 3, 3, 3), 0), 0),
                 "n": double(double(normal(HALF // 2), 0), 0), "w": normal(WIDTH, 3, 2, 2)},
        IMAGES,
    ),
    "transposed convolution in the middle": (
        IMAGE, "float[N,4,18,18] y",
        f"{MAKES} t = ConvTranspose<strides = [2, 2]>(h, w, v) r = Relu(t) y = Conv(r, u)",
        MAKER | {"w": normal(WIDTH, 24, 2, 2), "v": normal(24), "u": normal(4, 24, 1, 1)}, IMAGES,
    ),
    "batched product": (
        "float[N,4,5,24] x", "float[N,4,5,7] y", f"{ON_LINES} y = MatMul(h, w)",
        LINE | {"w": normal(4, WIDTH, 7)}, BATCHED,
    ),
    "batched product with a bias": (
        "float[N,4,5,24] x", "float[N,4,5,7] y", f"{ON_LINES} y0 = MatMul(h, w) y = Add(y0, v)",
        LINE | {"w": normal(4, WIDTH, 7), "v": normal(4, 1, 7)}, BATCHED,
    ),
    "experts that all read the same": (
        "float[N,1,5,24] x", "float[N,4,5,7] y", f"{ON_LINES} y = MatMul(h, w)",
        LINE | {"w": normal(4, WIDTH, 7)}, {"x": normal(48, 1, 5, 24, scale=1)},
    ),
    "batched product with the weight on the left": (
        "float[N,4,24,5] x", "float[N,4,7,5] y",
        "h0 = MatMul(m, x) h = Relu(h0) y = MatMul(w, h)",
        {"m": double(normal(HALF, 24), 0), "w": normal(4, 7, WIDTH)},
        {"x": normal(48, 4, 24, 5, scale=1)},
    ),
    "small weight on the left": (
        "float[N,24,5] x", "float[N,7,5] y", "h0 = MatMul(m, x) h = Relu(h0) y = MatMul(w, h)",
        {"m": double(normal(HALF, 24), 0), "w": normal(7, WIDTH)},
        {"x": normal(48, 24, 5, scale=1)},
    ),
    "einsum": (
        "float[N,6,24] x", "float[N,6,7] y",
        f'{ON_LINES} y = Einsum<equation = "btc,co->bto">(h, w)',
        LINE | {"w": normal(WIDTH, 7)}, TOKENS,
    ),
    "einsum with batches": (
        "float[N,6,24] x", "float[N,7,6] y",
        f'{ON_LINES} y = Einsum<equation = "btc,toc->bot">(h, w)',
        LINE | {"w": normal(6, 7, WIDTH)}, TOKENS,
    ),
    "one weight in two layers": (
        "float[N,6,24] x", "float[N,6,7] y, float[N,6,7] z",
        f"{ON_LINES} t = Neg(x) k0 = MatMul(t, m) k1 = Add(k0, n) k = Relu(k1)"
        " y = MatMul(h, w) z = MatMul(k, w)",
        LINE | {"w": normal(WIDTH, 7)}, TOKENS,
    ),
    "convolution along a line": (
        "float[N,3,20] x", "float[N,5,18] y", "h0 = Conv(x, m, n) h = Relu(h0) y = Conv(h, w)",
        ALONG | {"w": normal(5, WIDTH, 3)}, {"x": normal(48, 3, 20, scale=1)},
    ),
    "transposed convolution along a line": (
        "float[N,3,20] x", "float[N,5,40] y",
        "h0 = Conv(x, m, n) h = Relu(h0) y = ConvTranspose<strides = [2]>(h, w)",
        ALONG | {"w": normal(WIDTH, 5, 2)}, {"x": normal(48, 3, 20, scale=1)},
    ),
    "transposed convolution in space": (
        "float[N,2,4,4,4] x", "float[N,3,8,8,8] y",
        "h0 = Conv(x, m, n) h = Relu(h0) y = ConvTranspose<strides = [2, 2, 2]>(h, w)",
        {"m": double(normal(HALF, 2, 1, 1, 1), 0), "n": double(normal(HALF), 0),
         "w": normal(WIDTH, 3, 2, 2, 2)},
        {"x": normal(48, 2, 4, 4, 4, scale=1)},
    ),
    "lstm": (
        "float[N,6,24] x", "float[N,6,1,8] y",
        f"{ON_LINES} t = Transpose<perm = [1, 0, 2]>(h)"
        " u = LSTM<hidden_size = 8>(t, w, r, v) y = Transpose<perm = [2, 0, 1, 3]>(u)",
        LINE | {"w": normal(1, 32, WIDTH), "r": normal(1, 32, 8), "v": normal(1, 64)}, TOKENS,
    ),
    "gru of two directions without a bias": (
        "float[N,6,24] x", "float[N,6,2,8] y",
        f"{ON_LINES} t = Transpose<perm = [1, 0, 2]>(h)"
        ' u = GRU<hidden_size = 8, direction = "bidirectional", linear_before_reset = 1>(t, w, r)'
        " y = Transpose<perm = [2, 0, 1, 3]>(u)",
        LINE | {"w": normal(2, 24, WIDTH), "r": normal(2, 24, 8)}, TOKENS,
    ),
}  # fmt: skip


def prune(folder, text, weights, data, **settings):
    source = model(folder, text, weights=weights)
    spec = PASSES["prune-channels"]
    chosen = spec.settings(**({"remove": 0.4, "align": 1} | settings))
    step = Step(name="prune-channels", version=spec.version, settings=chosen)
    return source, run_checked(step, source, work(folder, samples(folder, **data)))


@pytest.mark.parametrize("kind", KINDS)
def test_consumers_of_copied_channels_compensate_the_removed_ones(tmp_path, kind):
    inputs, made, body, weights, data = KINDS[kind]
    remove = 0.2 if "lstm" in kind or "gru" in kind else 0.4  # the state of these stays
    text = f"g ({inputs}) => ({made}) {{ {body} }}"

    source, result = prune(tmp_path, text, weights, data, remove=remove)

    assert relative(outputs(source, data), outputs(result.model, data)) < 0.03
    assert not result.notes


def tied_text(table):
    return (
        "g (int64[N,6] i, float[N,6,24] x) => (float[N,6,40] y) { e = Gather(t, i)"
        " h0 = MatMul(x, m) h1 = Add(h0, n) h2 = Relu(h1) h = Add(h2, e)"
        f" u = Transpose<perm = [1, 0]>({table}) y = MatMul(h, u) }}"
    )


def test_a_weight_that_cannot_be_refitted_is_named_with_the_reason(tmp_path):
    weights = LINE | {"t": normal(40, WIDTH)}
    data = TOKENS | {"i": _RANDOM.integers(0, 40, size=(48, 6))}

    _, result = prune(tmp_path, tied_text("t"), weights, data, remove=0.2)

    notes = [note for note in result.notes if "not refitted" in note]
    assert notes == ["t was not refitted after its inputs were pruned: it is shared by 2 nodes"]


def test_channels_that_a_fixed_weight_does_not_read_are_removed_first(tmp_path):
    # The output layer is tied to the embedding, and reads nothing of the last channels.
    table = normal(40, WIDTH, scale=1)
    table[:, 20:] = 0
    weights = {"m": normal(24, WIDTH), "n": normal(WIDTH), "t": table}
    data = TOKENS | {"i": _RANDOM.integers(0, 40, size=(48, 6))}

    source, result = prune(tmp_path, tied_text("t"), weights, data, remove=0.3)

    assert relative(outputs(source, data), outputs(result.model, data)) < 1e-3
