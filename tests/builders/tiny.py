"""Tiny models in ONNX text, samples on disk, and helpers that apply passes to them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import numpy_helper

from edgekit.compression.pass_specs import PASSES, Work
from edgekit.compression.step_runner import run_step
from edgekit.onnx_graph.io import open_session, read_onnx
from edgekit.recipe import Step
from edgekit_agent.samples import Column, Samples

_numbers = itertools.count()


def proto(text, *, weights=None, opset=17, ir=8, imports="", functions=""):
    """Build a model from ONNX text; arrays of ``weights`` become initializers."""
    head = f'<ir_version: {ir}, opset_import: ["" : {opset}{imports}]> '
    made = onnx.parser.parse_model(head + text + functions)
    for name, array in (weights or {}).items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    _give_outputs_types(made)
    return made


def _give_outputs_types(made):
    known = onnx.shape_inference.infer_shapes(made).graph
    for output, inferred in zip(made.graph.output, known.output, strict=True):
        if not output.HasField("type"):
            output.CopyFrom(inferred)


def write(folder, made, name=None):
    """Write a model as a user would give it, and read it back."""
    path = Path(folder) / (name or f"model-{next(_numbers)}.onnx")
    path.write_bytes(made.SerializeToString())
    return read_onnx(path)


def model(folder, text, **how):
    return write(folder, proto(text, **how))


def samples(folder, label=None, preprocess=None, **arrays):
    """Write samples to disk, one column for each array."""
    columns = []
    for name, array in [*arrays.items(), *([("label", label)] if label is not None else [])]:
        array = np.ascontiguousarray(array)
        path = Path(folder) / f"column-{next(_numbers)}.bin"
        path.write_bytes(array.tobytes())
        columns.append(Column(name, str(path), 0, array.dtype.name, array.shape))
    if label is None:
        return Samples(tuple(columns), None, preprocess)
    return Samples(tuple(columns[:-1]), columns[-1], preprocess)


def work(folder, calibration=None):
    scratch = Path(folder) / f"scratch-{next(_numbers)}"
    scratch.mkdir()
    return Work(scratch=scratch, calibration=calibration, progress=lambda *_: None)


def apply(name, source, folder, calibration=None, **settings):
    """Run one pass as ``edgekit apply`` does, with its checks."""
    spec = PASSES[name]
    step = Step(name=name, version=spec.version, settings=spec.settings(**settings))
    return run_step(step, source, work(folder, calibration))


def run_steps(steps, source, folder, calibration=None):
    """Run several steps one after the other, with their checks."""
    for each in steps:
        source = run_step(each, source, work(folder, calibration))
    return source


def run(made, **inputs):
    """Run a model, and return its outputs in order."""
    return open_session(made.path).run(None, inputs)


def ops(made):
    """Return the operators of a file's main graph, in order."""
    return [node.op_type for node in onnx.load(str(made.path)).graph.node]


def fused_ops(made, folder):
    """Return the operators that onnxruntime actually runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(Path(folder) / f"fused-{next(_numbers)}.onnx")
    ort.InferenceSession(str(made.path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def sqnr_db(reference, other):
    """Compute the signal to quantization noise ratio in dB."""
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    noise = np.square(reference - other).sum()
    return 10 * np.log10(np.square(reference).sum() / max(noise, 1e-30))


def uniform(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).uniform(-scale, scale, shape)).astype(np.float32)


def normal(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(0, scale, shape)).astype(np.float32)


def train_digits_reader(*, width, count):
    """Train a network with one hidden layer on the first of scikit-learn's digits.

    Returns the images [1797, 64] from 0 to 1, their digits, and the weights w0, b0, w1 and b1.
    """
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    found = load_digits()
    x, y = (found.data / 16).astype(np.float32), found.target
    net = MLPClassifier((width,), max_iter=400, tol=1e-3, random_state=0).fit(x[:count], y[:count])
    layers = {"w": net.coefs_, "b": net.intercepts_}
    weights = {
        f"{kind}{i}": value.astype(np.float32)
        for kind, values in layers.items()
        for i, value in enumerate(values)
    }
    return x, y, weights
