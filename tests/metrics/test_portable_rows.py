"""Rows of statistics have the same bits on every processor."""

import hashlib

import numpy as np
import pytest

from edgekit_agent.metrics import load_statistic
from edgekit_agent.scoring import MetricOptions
from tests.metrics.tables import make_sample

# Exact fractions, so that they do not depend on the processor; irregular, from -8 to 8.
FRACTIONS = (np.arange(30_000) * 7919 % 1021 / 64.0 - 8).astype(np.float32)
LABELS = np.arange(3000) * 31 % 10
STREAM = FRACTIONS.reshape(3000, 10), LABELS
PRESENT = FRACTIONS, np.arange(30_000) % 2


@pytest.mark.parametrize(
    ("name", "data", "digest"),
    [
        ("log-loss", STREAM, "22925e7cf01d5459"),
        ("ece", STREAM, "96fee5d092b5e871"),
        ("multilabel-f1", PRESENT, "50d447789dd4f02c"),
    ],
)
def test_rows_have_the_bits_of_every_processor(name, data, digest):
    row = load_statistic(name)(make_sample(*data), MetricOptions(logits=True))
    assert hashlib.sha256(row.tobytes()).hexdigest()[:16] == digest


def test_reconstruction_errors_have_the_bits_of_every_processor():
    sample = make_sample(FRACTIONS, 1, inputs={"signal": FRACTIONS[::-1] * np.float32(0.3)})
    row = load_statistic("reconstruction-auc")(sample, MetricOptions())
    assert row.tobytes().hex() == "000000000000f03fef67ebdc73493c40"
