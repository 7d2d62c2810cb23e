"""Fixtures of the agent tests: a real agent process, tiny models, and samples on disk."""

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from edgekit.bundle.packing import pack
from edgekit_agent.codec import decode, encode_job
from edgekit_agent.jobs import InstallJob, NamedBlob, ReceiveJob
from edgekit_agent.results import ReceiveResult
from edgekit_agent.samples import Column, Samples
from edgekit_agent.worker_jobs import Blob, ModelRef
from edgekit_agent.worker_results import Failure

TARGETS = Path(__file__).resolve().parents[2] / "targets"
ZOO = Path(os.environ.get("EDGEKIT_ZOO", Path(__file__).resolve().parents[3] / "shared" / "zoo"))

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '
MODELS = {
    # Its output is its input: what is fed decides the class.
    "echo": "g (float[N,3] x) => (float[N,3] y) { y = Identity(x) }",
    "echo_batch_4": "g (float[4,3] x) => (float[4,3] y) { y = Identity(x) }",
    "log": "g (float[N,3] x) => (float[N,3] y) { y = Log(x) }",
    "one_value": "g (float[N,1] x) => (float[N,1] y) { y = Sigmoid(x) }",
    "tokens": "g (int64[N,L] ids, bool[N,L] mask) => (float[N,L] y) "
    "{ a = Cast<to = 1>(ids) b = Cast<to = 1>(mask) y = Mul(a, b) }",
    "halves": "g (float16[N,3] x) => (float16[N,3] y) { y = Identity(x) }",
}


class RunningAgent:
    """A running agent; ``ask`` sends a job and returns the record or the Failure."""

    def __init__(self, command, env=None):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        self.progress = []

    def send(self, job, payload=b""):
        self.send_raw(json.dumps(encode_job(job)).encode() + b"\n" + payload)

    def send_raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def answer(self, cls):
        for line in self.process.stdout:
            message = json.loads(line)
            if "progress" in message:
                self.progress.append(message["progress"])
            elif "error" in message:
                return decode(Failure, message["error"])
            else:
                return decode(cls, message["result"])
        raise EOFError(self.process.stderr.read().decode())

    def ask(self, job, cls, payload=b""):
        self.send(job, payload)
        return self.answer(cls)

    def children(self):
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]

    def close(self):
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()
        try:
            return self.process.wait(timeout=10)
        finally:
            self.process.kill()


def checkout_env():
    return {**os.environ, "PYTHONPATH": str(TARGETS)}


@pytest.fixture
def start_agent():
    running = []

    def start(command=(sys.executable, "-m", "edgekit_agent")):
        running.append(RunningAgent(list(command), checkout_env()))
        return running[-1]

    yield start
    for agent in running:
        agent.close()


@pytest.fixture
def agent(start_agent):
    return start_agent()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Paths of the tiny models by name."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, text in MODELS.items():
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(onnx.parser.parse_model(HEAD + text).SerializeToString())
    return paths


@pytest.fixture(scope="session")
def model_ref(models):
    return lambda name: ModelRef(str(models[name]), "onnxruntime")


@pytest.fixture
def samples(tmp_path):
    """Write arrays as columns; ``label`` becomes the label."""
    numbers = itertools.count()

    def write(label=None, preprocess=None, **arrays):
        columns = []
        for name, array in [*arrays.items(), *([("label", label)] if label is not None else [])]:
            array = np.asarray(array)
            path = tmp_path / f"{name}-{next(numbers)}.bin"
            path.write_bytes(b"head" + array.tobytes())
            columns.append(Column(name, str(path), 4, array.dtype.str, array.shape))
        made = Samples(tuple(columns), None, preprocess)
        if label is None:
            return made
        return replace(made, columns=tuple(columns[:-1]), label=columns[-1])

    return write


@pytest.fixture(scope="session")
def zoo():
    if not ZOO.is_dir():
        pytest.skip(f"no zoo of real models at {ZOO} (set EDGEKIT_ZOO)")
    return ZOO


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def blob():
    """Describe bytes to send: the blob and the bytes on the wire."""

    def describe(data, encoding="raw"):
        wire = {"raw": bytes, "zlib": zlib.compress, "packed": pack}[encoding](data)
        return Blob(sha256(data), len(data), sha256(wire), len(wire), encoding), wire

    return describe


@pytest.fixture
def deliver(agent, blob):
    """Send contents by file name to a home; return the names with their digests."""

    def send(home, contents):
        pairs = [blob(data) for data in contents.values()]
        blobs = tuple(described for described, _ in pairs)
        job = ReceiveJob(str(home), blobs, (0,) * len(blobs))
        received = agent.ask(job, ReceiveResult, b"".join(wire for _, wire in pairs))
        assert received == ReceiveResult(len(blobs), sum(b.wire_size for b in blobs))
        return tuple(NamedBlob(name, sha256(data)) for name, data in contents.items())

    return send


@pytest.fixture
def bundle(models):
    """Return the files of a release: a model that echoes, its golden samples, and a text."""

    def make(word, golden_outputs=None):
        rows = np.arange(6, dtype=np.float32).reshape(2, 3) + 1
        buffer = io.BytesIO()
        outputs = rows if golden_outputs is None else golden_outputs
        np.savez(buffer, **{"input:x": rows, "output:y": outputs})
        return {
            "model.onnx": models["echo"].read_bytes(),
            "golden.npz": buffer.getvalue(),
            "word.txt": word.encode(),
        }

    return make


@pytest.fixture
def install_job():
    def make(home, release, files, **settings):
        chosen = {"runtime": "onnxruntime", "threads": 1, "site": None, **settings}
        return InstallJob(
            str(home), release, files, "model.onnx", golden_samples="golden.npz", **chosen
        )

    return make
