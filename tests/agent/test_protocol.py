"""The agent's protocol: job lines, progress, failures, and worker processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipapp

import pytest

from edgekit_agent.jobs import ReceiveJob, StatusJob
from edgekit_agent.results import Status
from edgekit_agent.worker_jobs import BenchJob, ModelRef
from edgekit_agent.worker_results import Failure, Report

LONG = {"seconds": 60.0, "warmup_s": 0.1, "max_runs": 10**9}
SHORT = {"seconds": 0.0, "warmup_s": 0.05, "min_runs": 5, "max_runs": 5}

NOISY = """
import os, sys
os.write(1, b'{"result": {"noise": "from C"}}\\n')
print('{"result": {"noise": "from Python"}}', flush=True)
sys.path.remove(os.path.dirname(os.path.dirname(__file__)))
del sys.modules["onnxruntime"]
sys.modules["onnxruntime"] = __import__("onnxruntime")
"""


@pytest.fixture
def pyz(tmp_path, request):
    """Return the agent as one file, away from the checkout."""
    folder = tmp_path / "build"
    targets = request.config.rootpath / "targets" / "edgekit_agent"
    shutil.copytree(targets, folder / "edgekit_agent", ignore=shutil.ignore_patterns("__pycache__"))
    main = "from edgekit_agent.__main__ import main\nraise SystemExit(main())\n"
    (folder / "__main__.py").write_text(main)
    zipapp.create_archive(folder, tmp_path / "agent.pyz")
    return tmp_path / "agent.pyz"


def wait_for_worker(agent):
    for _ in range(100):
        if agent.children():
            return agent.children()[0]
        time.sleep(0.05)
    raise AssertionError("no worker was started")


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid):
    for _ in range(100):
        if not is_alive(pid):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"nonsense\n", "Expecting value"),
        (b"[1]\n", "expected"),
        (b'{"job": "dance", "settings": {}}\n', "unknown job 'dance'"),
        (b'{"job": "status", "settings": {"home": 1}}\n', "StatusJob.home: expected str"),
        (b'{"job": "status", "settings": {}}\n', "StatusJob.home: missing"),
        (b'{"job": ["status"], "settings": {}}\n', "not a job"),
    ],
)
def test_invalid_jobs_are_answered_and_the_agent_continues(agent, tmp_path, line, told):
    agent.send_raw(line)
    failure = agent.answer(Status)
    assert failure.kind == "bad_job"
    assert told in failure.message
    assert agent.ask(StatusJob(str(tmp_path)), Status) == Status(None, None)


def test_the_agent_ends_with_its_input(agent):
    agent.process.stdin.close()
    assert agent.process.wait(timeout=10) == 0
    assert agent.process.stdout.read() == b""


def test_jobs_that_came_before_the_end_of_input_are_answered(agent, model_ref):
    agent.send(BenchJob(model_ref("echo"), **SHORT))
    agent.process.stdin.close()
    report = agent.answer(Report)
    assert len(report.latency.values_ms) == 5


def test_the_version_is_printed(pyz):
    done = subprocess.run(
        [sys.executable, str(pyz), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("edgekit_agent protocol 1.1 ")


def test_an_unknown_argument_is_refused(pyz):
    done = subprocess.run([sys.executable, str(pyz), "--help-me"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"usage" in done.stderr


def test_a_worker_starts_from_a_pyz_in_a_folder_with_other_files(start_agent, pyz, model_ref):
    agent = start_agent(["env", "-u", "PYTHONPATH", sys.executable, "-I", str(pyz)])
    assert isinstance(agent.ask(BenchJob(model_ref("echo"), **SHORT), Report), Report)


def test_what_a_runtime_prints_does_not_break_the_conversation(agent, models, tmp_path):
    package = tmp_path / "site" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(NOISY)
    model = ModelRef(str(models["echo"]), "onnxruntime", 1, str(tmp_path / "site"))
    report = agent.ask(BenchJob(model, **SHORT), Report)
    assert isinstance(report, Report)
    agent.process.stdin.close()
    noise = agent.process.stderr.read()
    assert b"from C" in noise
    assert b"from Python" in noise


@pytest.mark.parametrize(
    ("number", "hint"), [(signal.SIGKILL, "out of memory"), (signal.SIGILL, "newer CPU")]
)
def test_a_killed_worker_is_reported_and_the_agent_continues(agent, model_ref, number, hint):
    agent.send(BenchJob(model_ref("echo"), **LONG))
    os.kill(wait_for_worker(agent), number)
    failure = agent.answer(Report)
    assert failure.kind == "killed"
    assert number.name in failure.message
    assert hint in failure.hint
    assert isinstance(agent.ask(BenchJob(model_ref("echo"), **SHORT), Report), Report)


def test_a_worker_ends_if_the_host_disconnects(agent, model_ref):
    agent.send(BenchJob(model_ref("echo"), **LONG))
    worker = wait_for_worker(agent)
    assert agent.close() == 0
    assert not is_alive(worker)


def test_a_worker_does_not_outlive_a_killed_agent(agent, model_ref):
    agent.send(BenchJob(model_ref("echo"), **LONG))
    worker = wait_for_worker(agent)
    agent.process.kill()
    assert wait_for_end(worker)


def test_a_missing_runtime_and_a_missing_model_cause_different_errors(agent, models, tmp_path):
    broken = tmp_path / "site" / "onnxruntime"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('wheel for another Python')")
    model = ModelRef(str(models["echo"]), "onnxruntime", 1, str(tmp_path / "site"))
    failure = agent.ask(BenchJob(model), Report)
    assert failure.kind == "missing_runtime"
    assert "another Python" in failure.message
    failure = agent.ask(BenchJob(ModelRef("/no/model.onnx", "onnxruntime")), Report)
    assert failure == Failure("missing_file", "/no/model.onnx: No such file or directory")
    assert agent.ask(BenchJob(ModelRef("/no/model", "abacus")), Report).kind == "bad_job"


def test_a_file_that_is_not_a_model_is_reported(agent, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    failure = agent.ask(BenchJob(ModelRef(str(tmp_path / "model.onnx"), "onnxruntime")), Report)
    assert failure.kind == "model_failed"


def test_a_home_that_cannot_be_written_is_named(agent, tmp_path):
    (tmp_path / "file").write_text("")
    home = str(tmp_path / "file" / "home")
    failure = agent.ask(ReceiveJob(home, (), ()), Status)
    assert failure.kind == "missing_file"
    assert home in failure.message
