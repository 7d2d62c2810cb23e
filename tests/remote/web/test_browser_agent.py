"""Models that run in headless Chromium as on a device."""

import json

import numpy as np
import onnx
import onnx.parser
import pytest

from edgekit.errors import DeviceError
from edgekit.remote.session import open_session
from edgekit.remote.web.browser_agent import BrowserAgent
from edgekit.tflite.flatbuffer import write_lite
from edgekit_agent.jobs import ProbeJob
from edgekit_agent.results import DeviceFacts
from edgekit_agent.runtimes.ort import load
from edgekit_agent.worker_jobs import BenchJob, ModelRef
from edgekit_agent.worker_results import Report
from tests.builders.handmade_tflite import one, tensor
from tests.builders.projects import DIGITS, edgekit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# One input of each kind of number, and an output of each.
KINDS = {
    "float16": "float16",
    "float": "float32",
    "double": "float64",
    "int8": "int8",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "bool": "bool",
}


@pytest.fixture(scope="module")
def agent(chromium, web_runtime):
    return BrowserAgent(web_runtime)


def make_relu():
    """Make a TFLite graph."""
    x, y = tensor("x", (1, 4)), tensor("y", (1, 4))
    return one("RELU", {0: x}, {}, [y])


def write_model(path, text):
    onnx.save(onnx.parser.parse_model(text), path)
    return ModelRef(str(path), "onnxruntime", 1)


@pytest.fixture
def copier(tmp_path):
    """A model that returns each of its inputs."""
    inputs = ", ".join(f"{kind}[N, 2] {name}" for kind, name in KINDS.items())
    outputs = ", ".join(f"{kind}[N, 2] {name}_out" for kind, name in KINDS.items())
    body = "".join(f"{name}_out = Identity({name}) " for name in KINDS.values())
    return write_model(
        tmp_path / "copier.onnx",
        f'<ir_version: 10, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}',
    )


def test_numbers_of_every_type_reach_the_browser_and_come_back(agent, copier):
    sent = {name: np.array([[0, 1], [1, 0], [1, 1]]).astype(name) for name in KINDS.values()}
    with agent.load(copier) as model:
        assert [(t.name, t.dtype, t.shape) for t in model.inputs] == [
            (name, name, ("N", 2)) for name in KINDS.values()
        ]
        got = model.run(sent)
    for name, values in sent.items():
        assert got[f"{name}_out"].dtype == values.dtype
        np.testing.assert_array_equal(got[f"{name}_out"], values)


def test_the_browser_computes_what_onnxruntime_computes(agent):
    inputs = {"image": np.load(DIGITS / "eval.npz")["image"][:4].astype(np.float32)}
    path = str(DIGITS / "model.onnx")
    with agent.load(ModelRef(path, "onnxruntime", 2)) as model:
        got = model.run(inputs)
        assert model.threads == 2, "the page is isolated from other origins, so it has threads"
    for name, values in load(path, 1).run(inputs).items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4)


def test_a_timing_has_raw_values_memory_and_the_version_of_the_runtime(agent, copier):
    job = BenchJob(copier, warmup_s=0.2, seconds=0.1, min_runs=12, max_runs=30)
    stages = []
    report = agent.ask(job, Report, progress=lambda said: stages.append(said.stage))
    assert 12 <= len(report.latency.values_ms) <= 30
    assert all(0 <= value < 1000 for value in report.latency.values_ms)
    assert report.latency.warmup_runs > 0
    assert 50 << 20 < report.runtime_rss_bytes <= report.peak_rss_bytes < 2 << 30
    assert (report.runtime, report.runtime_version) == ("onnxruntime-web", "1.30.0")
    assert stages[:2] == ["load", "bench"]


def test_a_model_that_the_runtime_refuses_is_the_models_fault(agent, tmp_path):
    ref = write_model(
        tmp_path / "bad.onnx",
        '<ir_version: 10, opset_import: ["" : 17, "our.own" : 1]> '
        "g (float[1] x) => (float[1] y) { y = our.own.Unknown(x) }",
    )
    with pytest.raises(DeviceError, match="Unknown") as failed:
        agent.ask(BenchJob(ref), Report, progress=None)
    assert failed.value.kind == "model_failed"


def test_bench_measures_latency_and_accuracy_in_the_browser(built, workplace, web_runtime):
    project, _ = built
    bundle = project / "build" / "tablet-x86"
    done = edgekit("bench", bundle, "web", "local", "--eval", DIGITS / "eval.npz", "--json")
    assert done.code == 0, done.err
    web, local = json.loads(done.out)
    assert "sends" not in done.err, "nothing leaves this machine"
    assert web["host"] == "web"
    assert web["runtime"] == "onnxruntime-web 1.30.0"
    assert abs(web["scores"][0]["correct"] - local["scores"][0]["correct"]) <= 2
    assert web["scores"][0]["n"] == local["scores"][0]["n"]
    assert 0 < web["times"]["p50_ms"] <= web["times"]["p95_ms"]
    assert web["times"]["processes"] == 3
    assert any("headless Chrom" in note for note in web["notes"])


def test_a_tflite_model_is_refused_with_what_to_do(workplace, web_runtime, chromium):
    (workplace / "relu.tflite").write_bytes(write_lite(make_relu()))
    done = edgekit("bench", "relu.tflite", "web")
    assert done.code == 4
    assert "web: browsers run ONNX models" in done.err
    assert "--runtime onnxruntime" in done.err


def test_web_can_only_be_measured():
    with pytest.raises(DeviceError, match="can only be measured") as refused, open_session("web"):
        pass
    assert "ssh:web" in refused.value.hint


def test_an_alias_web_is_reached_by_its_mark():
    with pytest.raises(DeviceError) as failed, open_session("ssh:no-such-host.invalid") as session:
        session.ask(ProbeJob(home=""), DeviceFacts)
    assert "no-such-host.invalid" in str(failed.value)
    assert "ssh:" not in str(failed.value).split(":")[0]


def test_without_chromium_the_message_says_what_to_install(monkeypatch, web_runtime, workplace):
    monkeypatch.setenv("EDGEKIT_CHROMIUM", "no-such-program")
    done = edgekit("bench", DIGITS / "model.onnx", "web")
    assert done.code == 4
    assert "apt install chromium" in done.err


def test_a_build_measures_its_candidates_in_the_browser(digits, web_runtime, chromium):
    done = edgekit(
        *("build", "-C", digits, "--device", "tablet-web", "--step", "clean", "--on", "web"),
        "--json",
    )
    assert done.code == 0, done.err
    told = json.loads((digits / "build" / "tablet-web" / "manifest.json").read_text())
    measured = {each["source"]: each for each in told["measurements"]}
    assert measured["device:web"]["runtime"] == "onnxruntime-web"
    assert measured["device:web"]["latency"]["p50_ms"] > 0
    assert abs(measured["device:web"]["correct"] - measured["host"]["correct"]) <= 2
