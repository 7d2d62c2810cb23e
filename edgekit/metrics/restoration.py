"""Metrics of image restoration: PSNR and SSIM, averaged over the images."""

from __future__ import annotations

import numpy as np

from edgekit.metrics.constant_predictors import broadcast_to_target, evaluate_predictor, fit_mean
from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Margin,
    Metric,
    Table,
    TargetReader,
    aggregate_mean,
    build_sums_value,
    prepare_first_mean,
)
from edgekit.metrics.row_checks import COSINE, POSITIVE, check_columns
from edgekit_agent.scoring import MetricOptions

# PSNR of identical images, and the largest that counts, in dB.
_HIGHEST_PSNR = 100.0


def _compute_decibels(rows: Floats) -> Floats:
    """Return the PSNR of each image."""
    return np.asarray(-10 * np.log10(np.maximum(rows[:, 0], 10 ** (-_HIGHEST_PSNR / 10))))


def prepare_psnr(table: Table, options: MetricOptions) -> Aggregate:
    """Return the mean PSNR of the images, each at most 100 dB."""
    del options
    return aggregate_mean(_compute_decibels(table.stack()))


def compute_constant_psnr(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the PSNR of the mean image or of a black one, whichever is better."""
    return max(
        evaluate_predictor("psnr", prepare_psnr, read, options, broadcast_to_target(image))
        for image in (fit_mean(read), np.zeros(()))
    )


def compute_constant_ssim(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the SSIM of the mean image, its mean or a black image, whichever is best."""
    mean = fit_mean(read)
    return max(
        evaluate_predictor("ssim", prepare_first_mean, read, options, broadcast_to_target(image))
        for image in (mean, np.asarray(mean.mean()), np.zeros(()))
    )


METRICS = (
    Metric(
        name="psnr",
        title="PSNR",
        target="the image, in the shape of the output",
        prepare=prepare_psnr,
        compute_trivial=compute_constant_psnr,
        is_share=False,
        margin=Margin(value=0.1),
        check_rows=check_columns(POSITIVE),
        sample_value=build_sums_value(_compute_decibels, "PSNR", higher_is_better=True),
    ),
    Metric(
        name="ssim",
        title="SSIM",
        target="the image, in the shape of the output",
        prepare=prepare_first_mean,
        compute_trivial=compute_constant_ssim,
        check_rows=check_columns(COSINE),
    ),
)
