"""Quantization of a model by another tool, in that tool's own environment, one call per process.

    PEER_PYTHON peers.py TOOL MODEL DATA TARGET

DATA is a folder with one .npy per model input, first axis = samples. Prints one JSON object:
seconds, and the process's peak resident memory in bytes.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Rows = Iterator[dict[str, np.ndarray]]


def read(data: Path, most: int | None = None) -> Rows:
    """Yield the samples, one at a time."""
    columns = {file.stem: np.load(file, mmap_mode="r") for file in sorted(data.glob("*.npy"))}
    count = min(len(column) for column in columns.values())
    for row in range(min(count, most or count)):
        yield {name: np.array(column[row : row + 1]) for name, column in columns.items()}


class Reader:
    """Source of samples for onnxruntime's calibration."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next sample; ``None`` after the last."""
        return next(self.rows, None)


def _prepare_model(model: Path, target: Path) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".pre.onnx")
    try:
        quant_pre_process(str(model), str(prepared))
    except Exception:  # noqa: BLE001 - symbolic shape inference fails on some graphs
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    return prepared


def ort_static(method: str, most: int | None = None) -> Callable[[Path, Path, Path], None]:
    """Return onnxruntime's static quantization with one of its calibration methods."""

    def quantize(model: Path, data: Path, target: Path) -> None:
        from onnxruntime import quantization as ortq

        ortq.quantize_static(
            str(_prepare_model(model, target)),
            str(target),
            Reader(read(data, most)),
            quant_format=ortq.QuantFormat.QDQ,
            per_channel=True,
            activation_type=ortq.QuantType.QUInt8,
            weight_type=ortq.QuantType.QInt8,
            calibrate_method=getattr(ortq.CalibrationMethod, method),
        )

    return quantize


def ort_dynamic(model: Path, data: Path, target: Path) -> None:
    """Quantize a model by onnxruntime's dynamic quantization."""
    from onnxruntime import quantization as ortq

    prepared = _prepare_model(model, target)
    ortq.quantize_dynamic(
        str(prepared), str(target), per_channel=True, weight_type=ortq.QuantType.QInt8
    )


def nncf(model_type: str | None = None) -> Callable[[Path, Path, Path], None]:
    """Return NNCF's post-training quantization of an ONNX model."""

    def quantize(model: Path, data: Path, target: Path) -> None:
        import nncf
        import onnx

        dataset = nncf.Dataset(list(read(data)))
        kind = None if model_type is None else nncf.ModelType(model_type)
        made = nncf.quantize(
            onnx.load(str(model)),
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=300,
            model_type=kind,
        )
        onnx.save(made, str(target))

    return quantize


TOOLS: dict[str, Any] = {
    "ort-minmax": ort_static("MinMax"),
    # These two keep every activation of every sample; memory allows 64 samples.
    "ort-percentile": ort_static("Percentile", 64),
    "ort-entropy": ort_static("Entropy", 64),
    "ort-dynamic": ort_dynamic,
    "nncf": nncf(),
    "nncf-transformer": nncf("transformer"),
}


def main() -> None:
    """Run the tool and print time and memory."""
    tool, model, data, target = sys.argv[1], *map(Path, sys.argv[2:5])
    answer, sys.stdout = sys.stdout, sys.stderr
    started = time.perf_counter()
    TOOLS[tool](model, data, target)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) << 10
    answer.write(json.dumps({"seconds": seconds, "peak_rss_bytes": peak}) + "\n")


if __name__ == "__main__":
    main()
