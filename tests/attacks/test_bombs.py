"""Decompression bombs, and files without an end."""

import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import onnx.parser
import pytest

from edgekit.bundle.bundle_file import open_bundle
from edgekit.errors import UserError
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import ReceiveJob
from edgekit_agent.limits import Limits, get_expansion_limit
from edgekit_agent.packing.rans import FLOOR
from edgekit_agent.packing.unpack import COPY, FILL, MAGIC, PRODUCT, STORED, ZLIB, unpack
from edgekit_agent.releases.receive import receive
from edgekit_agent.supervise import run_in_worker
from edgekit_agent.wire import Outlet
from edgekit_agent.worker_jobs import Blob, HealthJob, ModelRef
from tests.builders.projects import edgekit
from tests.builders.servers import make_bundle

GIB = 1 << 30


def varints(*values):
    out = bytearray()
    for number in values:
        value = number
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def make_packed(plan, *, claims=None, method=STORED, body=None):
    """Return a packed file of a plan without numbers."""
    body = plan if body is None else body
    head = varints(method, claims or len(plan), len(body), 0, 1)
    return MAGIC + head + body + struct.pack("<I", FLOOR)


def make_plan(*gaps):
    """Return a plan of gaps with their sizes, kinds and arguments."""
    size = sum(gap[0] for gap in gaps)
    columns = zip(*((0, gap[0], gap[1]) for gap in gaps), strict=True)
    numbers = [number for column in columns for number in column]
    arguments = b"".join(varints(*gap[2]) for gap in gaps)
    return varints(size, 0, 0, len(gaps)) + varints(*numbers) + arguments


def zero_fill(size):
    return make_packed(make_plan((size, FILL, (1, 0))))


def bundle_file(folder, model, model_bytes):
    """A bundle file whose model is stored packed, and the manifest claims that it is so large."""
    bundle = make_bundle(folder, width=8)
    manifest = json.loads(bundle.manifest_bytes)
    for file in manifest["files"]:
        if file["name"] == "model.onnx":
            file["bytes"] = model_bytes
    path = folder / "b.edgekit"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.write(bundle.path / "golden.npz", "golden.npz")
        archive.writestr("model.onnx.packed", model)
    return path


def test_a_few_bytes_that_declare_6_gib_are_refused_on_the_host(workplace):
    path = bundle_file(workplace / "b", zero_fill(6 * GIB), 6 * GIB)
    assert path.stat().st_size < 6000
    done = edgekit("push", path, "local")
    assert done.code == 2
    assert "declare an expanded size of 6442450944" in done.err
    assert done.cpu_s < 20


def test_the_device_refuses_such_a_file_before_it_receives_a_byte(tmp_path):
    wire = zero_fill(6 * GIB)
    blob = Blob("0" * 64, 6 * GIB, hashlib.sha256(wire).hexdigest(), len(wire), "packed")

    class Nothing:
        def expect(self, count):
            return None

        def take(self, limit):
            raise AssertionError("bytes were taken")

    for each in (blob, Blob("0" * 64, -1, "0" * 64, 0, "raw")):
        job = ReceiveJob(str(tmp_path / "home"), (each,), (0,))
        with pytest.raises(AgentError) as caught:
            receive(job, Nothing(), lambda *_: None, None)
        assert caught.value.failure.kind in ("bad_job", "no_space")
    assert list((tmp_path / "home" / "parts").iterdir()) == []


def test_a_member_larger_than_the_manifest_states_is_not_unpacked(workplace):
    bundle = make_bundle(workplace / "b", width=8)
    path = workplace / "bomb.edgekit"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(bundle.path / "manifest.json", "manifest.json")
        archive.write(bundle.path / "golden.npz", "golden.npz")
        archive.writestr("model.onnx", bytes(100 << 20))
    done = edgekit("push", path, "local")
    assert done.code == 2
    assert "104857600 bytes, expected at most" in done.err
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(100 << 20))
    done = edgekit("push", path, "local")
    assert done.code == 2
    assert "not a bundle" in done.err


@pytest.mark.parametrize("kind", ["fifo", "endless"])
@pytest.mark.parametrize("name", ["b.edgekit", "manifest.json", "model.onnx", "golden.npz"])
def test_a_file_without_an_end_is_not_a_bundle(workplace, kind, name):
    bundle = make_bundle(workplace / "b", width=8)
    path = bundle.path / name
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="not a regular file"):
        open_bundle(path if name == "b.edgekit" else bundle.path).check()


def make_golden(path, member_bytes):
    """Write a file of golden samples whose members declare these sizes."""
    rows = np.ones((2, 3), np.float32)
    np.savez(path, **{"input:x": rows, "output:y": rows})
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
            archive.getinfo(name).file_size = member_bytes
    return path


@pytest.fixture
def ask(tmp_path):
    """Run a health check of a model in a worker with limits."""

    def run(text, limits, golden_samples=None):
        model = tmp_path / "model.onnx"
        head = '<ir_version: 8, opset_import: ["" : 17]> '
        model.write_bytes(onnx.parser.parse_model(head + text).SerializeToString())
        if golden_samples is None:
            golden_samples = tmp_path / "golden.npz"
            rows = np.ones((2, 3), np.float32)
            np.savez(golden_samples, **{"input:x": rows, "output:y": rows})
        job = HealthJob(ModelRef(str(model), "onnxruntime"), str(golden_samples))
        end, start = os.pipe()
        try:
            return run_in_worker(job, Outlet(start), limits)
        finally:
            os.close(end)
            os.close(start)

    return run


ECHO = "g (float[N,3] x) => (float[N,3] y) { y = Identity(x) }"
ENDLESS = """g (float[N,3] x) => (float[N,3] y)
<int64 n = {1000000000000}, bool go = {1}> {
 y = Loop (n, go, x) <body = step (int64 i, bool c, float[N,3] a) => (bool d, float[N,3] b)
 { d = Identity(c) b = Sin(a) }> }"""
GREEDY = """g (float[N,3] x) => (float[N,3] y)
<int64[1] n = {400000000}, int64[1] zero = {0}, int64[1] one = {1}> {
 l = Shape(x) k = Slice(l, zero, one) z = Mul(k, n) w = ConstantOfShape(z)
 m = ReduceMax<keepdims=0>(w) y = Add(x, m) }"""


def test_golden_samples_that_unpack_to_gibibytes_are_not_sent(workplace):
    bundle = make_bundle(workplace / "b", width=8)
    data = make_golden(bundle.path / "golden.npz", 3 * GIB).read_bytes()
    manifest = json.loads(bundle.manifest_bytes)
    for file in manifest["files"]:
        if file["name"] == "golden.npz":
            file |= {"bytes": len(data), "digest": hashlib.sha256(data).hexdigest()}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    done = edgekit("push", bundle.path, "local")
    assert done.code == 2, done.err
    assert "golden.npz: not valid golden samples: expands to " in done.err


def test_golden_samples_that_unpack_to_gibibytes_are_refused(ask, tmp_path):
    with pytest.raises(AgentError, match="expands to 6442450944 bytes") as caught:
        ask(ECHO, Limits(), make_golden(tmp_path / "bomb.npz", 3 * GIB))
    assert caught.value.failure.kind == "bad_job"


def test_a_health_check_ends_after_its_time(ask):
    started = time.monotonic()
    with pytest.raises(AgentError, match="did not finish within 3 s") as caught:
        ask(ENDLESS, Limits(seconds=3.0))
    assert caught.value.failure.kind == "too_slow"
    assert time.monotonic() - started < 30


def test_a_health_check_gets_no_more_than_its_memory(ask):
    earlier = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of all tests before
    assert ask(ECHO, Limits(memory_bytes=GIB))["healthy"]
    with pytest.raises(AgentError) as caught:
        ask(GREEDY, Limits(memory_bytes=GIB))
    assert caught.value.failure.kind in ("model_failed", "no_memory", "killed"), caught.value
    assert "alloc" in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(earlier, 1 << 20)


@pytest.mark.parametrize("kernel", ["4.6.7-armv7", "3.18.140", "4.7.0", "6.1.0-9-arm64"])
def test_memory_is_limited_under_every_kernel(kernel):
    """Before Linux 4.7, RLIMIT_DATA limits nothing that is mapped, as large arrays are."""
    code = (
        "import platform, resource, sys; from edgekit_agent.limits import limit_memory\n"
        "platform.release = lambda: sys.argv[1]; limit_memory(1 << 28)\n"
        "print(*(resource.getrlimit(k)[0] for k in (resource.RLIMIT_DATA, resource.RLIMIT_AS)))\n"
        "bytearray(64 << 20)\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: print('limited')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, kernel], capture_output=True, text=True, check=True
    )
    is_old = kernel < "4.7"
    unlimited = str(resource.RLIM_INFINITY)
    expected = [unlimited, str((1 << 28) + GIB)] if is_old else [str(1 << 28), unlimited]
    assert done.stdout.split() == [*expected, "limited"]


MIB_64 = 64 << 20
BOMBS = {
    "one word": make_plan((MIB_64, FILL, (1, 7))),
    "copies": make_plan((MIB_64 // 2, FILL, (1, 7)), (MIB_64 // 2, COPY, (1,))),
    "products": make_plan(
        (MIB_64 // 2, FILL, (4, 0, 0, 0, 0)),
        (4, FILL, (4, 0, 0, 0, 0)),
        (MIB_64 // 2, PRODUCT, (2, 1)),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_expanding_takes_the_declared_size_and_a_little(tmp_path, name):
    data = make_packed(BOMBS[name])
    (tmp_path / "packed").write_bytes(data)
    size = sum((64 << 20, 4 if name == "products" else 0))
    code = (
        "import sys; from edgekit_agent.packing.unpack import unpack; import numpy\n"
        "from edgekit_agent.measure.memory import peak_rss_bytes\n"
        "data = open(sys.argv[1], 'rb').read(); before = peak_rss_bytes()\n"
        "assert len(unpack(data, int(sys.argv[2]))) == int(sys.argv[2])\n"
        "print(peak_rss_bytes() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "packed", str(size)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < size + (24 << 20)


@pytest.mark.parametrize(
    "data",
    [
        make_packed(varints(100, 0, 0, 1 << 40)),
        make_packed(varints(100, 0, 1 << 15, 0) + bytes(1 << 20)),
        make_packed(varints(8, 0, 0, 1, 0, 8, FILL, 1 << 40)),
        make_packed(b"", claims=1 << 40, method=ZLIB, body=b"x"),
        make_packed(varints(8 << 20, 0, 0, 1, 0, 8 << 20, 3, 6 << 20, 1) + bytes(6 << 20)),
    ],
)
def test_plans_that_declare_large_sizes_are_refused_early(data):
    started = time.monotonic()
    with pytest.raises(AgentError) as caught:
        unpack(data, 8 << 20)
    assert caught.value.failure.kind == "corrupt"
    assert time.monotonic() - started < 20


def test_limits_of_the_host_and_the_device_agree():
    assert get_expansion_limit(0) == 64 << 20
    assert get_expansion_limit(1 << 20) > 256 << 20
