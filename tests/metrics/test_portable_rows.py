"""Rows of statistics have the same bits on every processor."""

import hashlib

import numpy as np
import pytest

from edgekit_agent.scoring import MetricOptions
from tests.builders.metrics.plain_numpy import compute_plain_digests
from tests.builders.metrics.values import compute_row

# Digests of the rows; numpy 1.26 and 2.4 computed the same on aarch64.
DIGESTS = {
    "mae": "79f4688c5b730792",
    "rmse": "d3fb77b65ba38870",
    "r2": "f0c8160e14d2f435",
    "relative-rms": "4093307c0464f418",
    "cosine": "61824e67a3527a45",
    "psnr": "2fbfe07b879146e4",
    "ssim": "af3253fcffd1abc4",
    "miou": "3960e78acc4928e0",
    "cer": "bd9ef050ad751465",
    "wer": "6bb39eb316724318",
    "perplexity": "9641da992fd2f5df",
    "token-accuracy": "eb26fcb697a75b93",
}


def make_integers(*shape):
    """Integers below 2 ** 16 that look random, the same everywhere."""
    count = np.arange(int(np.prod(shape)), dtype=np.uint64)
    mixed = (count + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(48)).astype(np.int64).reshape(shape)


def make_pair(name):
    """Output and target, made of exact fractions."""
    numbers = make_integers(2, 3, 40, 37)
    if name in ("miou", "dice"):
        return numbers[0], numbers[1, 0] % 3
    if name in ("perplexity", "token-accuracy"):
        return numbers[0].reshape(-1, 37) / 4096, numbers[1].reshape(-1, 37)[:, 0] % 37
    if name in ("cer", "wer"):
        texts = np.where(numbers % 7 == 0, 32, 97 + numbers % 5)
        return texts[0].ravel(), texts[1].ravel()
    if name == "r2":
        numbers = numbers[:, 0, 0]
    return (numbers[0] / 65536).astype(np.float32), (numbers[1] / 65536).astype(np.float32)


def compute_digest(name):
    row = compute_row(name, *make_pair(name), MetricOptions(data_range=1.0))
    return hashlib.sha256(row.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", DIGESTS)
def test_rows_have_the_bits_of_every_processor(name):
    assert compute_digest(name) == DIGESTS[name]


def test_rows_do_not_depend_on_the_instructions_that_numpy_chooses():
    found = compute_plain_digests("tests.metrics.test_portable_rows")
    assert found == list(DIGESTS.values())
