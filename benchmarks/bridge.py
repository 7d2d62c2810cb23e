"""Comparison of emitted .tflite files with their ONNX sources and with TensorFlow's converter.

    python -m benchmarks.bridge ZOO [--only NAME ...] [--out DIR]

Run it at the root of the repository. Every model is cleaned and quantized by `edgekit apply`, and
both results are emitted as .tflite. All files are fed the same samples, one at a time, and timed in
turn on one thread. If the zoo has the Keras model, the file of TFLiteConverter is compared too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter

from benchmarks.zoo import apply_command, entries, write_project
from edgekit.config.project import load_project
from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.data.dataset import Dataset, open_dataset
from edgekit.onnx_graph.io import load, read_onnx
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.runtimes.ort import OrtModel

Feed = dict[str, np.ndarray]
Run = Callable[[Feed], np.ndarray]
_COMPARED = 100
_ROUNDS = 7
_SECONDS = 0.4
_CONVERT = """
import sys, tf_keras, tensorflow as tf
model = tf_keras.models.load_model(sys.argv[1], compile=False)
shape = [1, *model.inputs[0].shape[1:]]
run = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec(shape, tf.float32)])
converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()], model)
open(sys.argv[2], "wb").write(converter.convert())
"""


def session(path: Path) -> ort.InferenceSession:
    """Open an onnxruntime session with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_run(path: Path) -> Run:
    """Load an ONNX file as a function from a feed to its first output."""
    opened = session(path)
    return lambda feed: opened.run(None, feed)[0]


def lite_run(path: Path) -> Run:
    """Load a .tflite file as a function from a feed to its only output, on one thread."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    names = list(runner.get_input_details())

    def run(feed: Feed) -> np.ndarray:
        values = feed if len(names) > 1 else {names[0]: next(iter(feed.values()))}
        return next(iter(runner(**values).values()))

    return run


def operators(path: Path) -> list[str]:
    """List the operators of a .tflite file, in order."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    return [op["op_name"] for op in interpreter._get_ops_details()]


def make(folder: Path, source: Path) -> None:
    """Clean and quantize a model by the command line, unless the files exist."""
    data = load_project(folder).data.calibration
    steps = [
        ("clean", source, "clean.onnx", []),
        ("quantize-static", folder / "clean.onnx", "int8.onnx", ["--data", data]),
    ]
    for name, given, target, more in steps:
        if not (folder / target).exists():
            options = ["-C", str(folder), *more]
            command = apply_command(name, given, folder / target, options=options)
            subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )


def convert(home: Path, entry: dict[str, Any], folder: Path) -> Path | None:
    """Convert the Keras model by TFLiteConverter once; ``None`` if there is no Keras model."""
    source = entry.get("files", {}).get("keras_h5")
    target = folder / "converter.tflite"
    if source is None:
        return None
    if not target.exists():
        command = [sys.executable, "-c", _CONVERT, str(home / source), str(target)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return target


def time_all(runs: dict[str, Run], feed: Feed) -> dict[str, float]:
    """Measure the median milliseconds of each model: the best of several interleaved rounds."""
    best: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            run(feed)
            taken: list[float] = []
            until = time.perf_counter() + _SECONDS / len(runs)
            while time.perf_counter() < until or len(taken) < 5:
                start = time.perf_counter()
                run(feed)
                taken.append(1000 * (time.perf_counter() - start))
            best[name] = min(best.get(name, np.inf), statistics.median(taken))
    return best


def feeds(split: Dataset, path: Path) -> tuple[list[Feed], np.ndarray]:
    """Return every sample as a feed of the model, and the labels."""
    inputs = OrtModel(session(path)).inputs
    made = list(iter_batches(split.samples, inputs, 1))
    return [b.inputs for b in made], np.concatenate([b.labels for b in made])


def compare(name: str, entry: dict[str, Any], options: argparse.Namespace) -> str:
    """Compare the files of one model and format a line of the table."""
    home, folder = options.zoo / name, options.out / name
    write_project(options.zoo, entry, folder)
    make(folder, home / entry["model"])
    model, data = read_onnx(folder / "clean.onnx"), load_project(folder).data
    split = open_dataset(
        data.evaluation,
        model.signature,
        folder=folder,
        cache=folder / "cache",
        settings=data.preprocess,
        targets="required",
    )
    samples, labels = feeds(split, folder / "clean.onnx")
    files = {f"ort {kind}": folder / f"{kind}.onnx" for kind in ("clean", "int8")}
    for kind in ("clean", "int8"):
        dims = _dims(model.path, samples[0])
        target = files[f"lite {kind}"] = folder / f"{kind}.tflite"
        target.write_bytes(convert_to_tflite(load(folder / f"{kind}.onnx"), dims))
    if (theirs := convert(home, entry, folder)) is not None:
        files["converter"] = theirs
    runs = {k: lite_run(p) if p.suffix == ".tflite" else onnx_run(p) for k, p in files.items()}
    return _row(name, files, runs, samples, labels)


def _dims(path: Path, feed: Feed) -> dict[str, int]:
    return {
        dim: size
        for tensor in session(path).get_inputs()
        for dim, size in zip(tensor.shape, feed[tensor.name].shape, strict=True)
        if isinstance(dim, str)
    }


def _row(
    name: str, files: dict[str, Path], runs: dict[str, Run], samples: list[Feed], labels: np.ndarray
) -> str:
    apart = [_difference(runs["lite clean"](f), runs["ort clean"](f)) for f in samples[:_COMPARED]]
    found = {
        kind: np.asarray([runs[kind](feed).argmax() for feed in samples])
        for kind in ("ort int8", "lite int8")
    }
    agree = 100 * (found["ort int8"] == found["lite int8"]).mean()
    right = {kind: 100 * (each == labels.ravel()).mean() for kind, each in found.items()}
    took = time_all(runs, samples[0])
    transposes = operators(files["lite clean"]).count("TRANSPOSE")
    theirs = ratio = "-"
    if "converter" in files:
        theirs = str(operators(files["converter"]).count("TRANSPOSE"))
        ratio = f"{took['lite clean'] / took['converter']:.2f}"
    base = took["ort clean"]
    return (
        f"| {name} | {max(apart):.1e} | {agree:.2f} | {right['ort int8']:.2f} -> "
        f"{right['lite int8']:.2f} | {transposes} / {theirs} | {ratio} "
        f"| {base:.3f} | {took['lite clean'] / base:.2f} | {took['ort int8'] / base:.2f} "
        f"| {took['lite int8'] / base:.2f} |"
    )


def _difference(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(made - wanted).max() / max(np.abs(wanted).max(), 1e-30))


def main() -> None:
    """Compare all models and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("build/bridge"))
    options = parser.parse_args()
    options.out = options.out.resolve()
    print(
        "| model | float: largest difference | int8: agreement, % | accuracy, ONNX -> TFLite "
        "| TRANSPOSE, ours / converter | p50 of the converter's "
        "| p50 ORT float, ms | TFLite float | ORT int8 | TFLite int8 |"
    )
    print("| --- " * 10 + "|")
    for name, entry in entries(options.zoo).items():
        if options.only is None or name in options.only:
            print(compare(name, entry, options), flush=True)


if __name__ == "__main__":
    main()
