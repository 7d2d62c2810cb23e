"""The running app: start, stop, restart of its parts, and what ends them."""

import contextlib
import fcntl
import json
import os
import runpy
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgekit_agent.apps.installed import find_app, make_command
from edgekit_agent.apps.serving.background import BackgroundProcess, make_answer
from edgekit_agent.apps.serving.predictor import Predictor
from edgekit_agent.failures import AgentError
from tests.builders.apps.device import ROW, list_children, read_command, wait_for
from tests.builders.projects import ROOT
from tests.builders.servers import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def server(installed):
    with installed.serve() as running:
        running.wait_until_ready()
        yield running


def test_a_killed_process_of_the_models_is_started_again(server):
    for _ in range(2):
        worker = server.find_worker()
        os.kill(worker, signal.SIGKILL)
        reply = server.predict()
        assert reply.status in (200, 503)
        wait_for(lambda: server.predict().status == 200)
        assert server.find_worker() != worker
    assert server.ask("GET", "/health").json["ready"] is True


def test_no_process_outlives_a_killed_server(installed):
    with installed.serve() as running:
        running.wait_until_ready()
        worker = running.find_worker()
        running.process.kill()
        running.process.wait()
        wait_for(lambda: not Path(f"/proc/{worker}").exists())
    assert "not running" in installed.run("status").stdout
    assert installed.run("stop").stdout == "leaf was not running\n"


def test_a_server_survives_the_end_of_its_terminal_if_told_to(installed):
    command = ["nohup", installed.prefix / "bin/leaf", "serve", "--port", "0"]
    with installed.start(command) as process:
        assert "http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_stop_ends_the_server(installed, server):
    assert f"http://127.0.0.1:{server.port}/" in installed.run("status").stdout
    assert installed.run("stop").stdout == "leaf has stopped\n"
    assert server.process.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_an_app_is_served_once(installed, server):
    again = installed.run("serve", "--port", "0")
    assert again.returncode == 2
    assert f"runs already at http://127.0.0.1:{server.port}/" in again.stderr
    assert server.predict().status == 200


def test_a_command_that_asks_for_the_state_does_not_hinder_the_start(installed):
    with (installed.app() / "serve.lock").open("ab") as state:
        fcntl.flock(state, fcntl.LOCK_SH)
        timer = threading.Timer(1.0, fcntl.flock, (state, fcntl.LOCK_UN))
        timer.start()
        with installed.serve() as server:
            server.wait_until_ready()
        timer.join()


def test_a_stale_process_number_is_not_killed(installed):
    with subprocess.Popen(["sleep", "60"]) as bystander:
        state = installed.app() / "serve.lock"
        state.write_text(f'{{"pid": {bystander.pid}, "port": 1, "release": "x"}}')
        assert installed.run("stop").stdout == "leaf was not running\n"
        assert bystander.poll() is None
        bystander.kill()


def test_a_port_in_use_is_reported(installed):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        failed = installed.run("serve", "--port", str(taken.getsockname()[1]))
    assert failed.returncode == 2
    assert "choose another port" in failed.stderr


def test_other_addresses_are_refused(installed):
    assert installed.run("serve", "--host", "0.0.0.0").returncode == 2


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_a_port_that_is_none_is_refused_in_words(installed, port):
    refused = installed.run("serve", f"--port={port}")
    assert refused.returncode == 2
    assert "a port is a number from 0 to 65535" in refused.stderr


def test_only_the_loopback_address_is_bound(installed, server):
    table = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()
    port = f":{server.port:04X} "
    bound = [line.split()[1] for line in table if port in line and line.split()[3] == "0A"]
    assert bound == [f"0100007F:{server.port:04X}"]


def test_the_installer_starts_the_app_and_an_upgrade_restarts_it(device, package, newer_package):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    started = device.install(package, "--port", port)
    assert started.returncode == 0, started.stderr
    assert f"it answers at http://127.0.0.1:{port}/" in started.stdout
    try:
        first = device.run("status", "--json").stdout
        upgraded = device.install(newer_package, "--port", "1")
        assert f"it answers at http://127.0.0.1:{port}/" in upgraded.stdout
        assert device.run("status", "--json").stdout != first
        assert f"running at http://127.0.0.1:{port}/, ready" in device.run("status").stdout
        assert "previous: 1.0" in device.run("status").stdout
        assert device.install(newer_package, "--port", "1").stdout.count("complete") == 1
    finally:
        removed = device.run("uninstall")
    assert removed.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


APP = """
import json, os, sys, time

def answer(models, sample, media_type):
    if "sleep" in sample:
        time.sleep(sample["sleep"])
    if "raise" in sample:
        raise RuntimeError("a secret of the app")
    if "crash" in sample:
        os.abort()
    if "eat" in sample:
        return {"result": len(bytearray(8 << 40))}
    if "long" in sample:
        return {"result": "x" * (65 << 20)}
    if "print" in sample:
        print("words on standard output")
        os.write(1, b"more words")
    if "wrong" in sample:
        return {"result": float("nan")}
    found = models["main"].predict({"x": sample["x"]})
    return {**found, "media_type": media_type}

def watch(answer, stop):
    folder = os.environ["WATCH_FOLDER"]
    while not stop.wait(0.1):
        for name in os.listdir(folder):
            if name.endswith(".json"):
                with open(os.path.join(folder, name), "rb") as file:
                    data = file.read()
                if data == b"crash":
                    os.unlink(os.path.join(folder, name))
                    os.abort()
                with open(os.path.join(folder, name[:-5] + ".result"), "w") as file:
                    json.dump(answer(data, "application/json"), file)
                os.unlink(os.path.join(folder, name))
"""


@pytest.fixture
def own_app(device, draft):
    """A device with an app that has code of its own."""
    members = {"app/main.py": APP.encode()}
    changed = draft.replace(members, entry="main:answer", background="main:watch")
    folder = device.folder / "watched"
    folder.mkdir()
    device.environment["WATCH_FOLDER"] = str(folder)
    done = device.install(changed.write(device.folder / "own.run"))
    assert done.returncode == 0, done.stderr
    return device


def test_the_code_of_an_app_cannot_take_the_server_down(own_app):
    with own_app.serve() as server:
        server.wait_until_ready()
        assert server.predict().json["media_type"] == "application/json"
        assert server.predict(json.dumps({**ROW, "print": 1})).status == 200
        failed = server.predict('{"raise": 1}')
        assert (failed.status, failed.json["error"]["code"]) == (500, "app_failed")
        assert b"secret" not in failed.body
        assert server.predict('{"wrong": 1}').status == 500
        worker = server.find_worker()
        assert server.predict('{"long": 1}').status == 500
        assert server.find_worker() == worker
        assert server.predict('{"crash": 1}').status == 503
        wait_for(lambda: server.predict().status == 200)
        assert server.predict('{"eat": 1}').status == 503
        wait_for(lambda: server.predict().status == 200)

        watched = own_app.folder / "watched"
        for _ in range(2):
            (watched / "a.part").write_text(json.dumps(ROW))
            (watched / "a.part").rename(watched / "a.json")
            wait_for((watched / "a.result").exists)
            wait_for(lambda: not (watched / "a.json").exists())
            (watched / "a.result").unlink()
            (watched / "b.part").write_text("crash")
            (watched / "b.part").rename(watched / "b.json")
            wait_for(lambda: not (watched / "b.json").exists())
        children = list_children(server.process.pid)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_a_background_process_that_cannot_be_started_is_tried_again(tmp_path):
    program = tmp_path / "program"
    with BackgroundProcess([str(program)]):
        time.sleep(0.3)
        (tmp_path / "made").write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\ncat\n")
        (tmp_path / "made").chmod(0o755)
        (tmp_path / "made").rename(program)
        wait_for((tmp_path / "started").exists)


def test_a_watched_file_waits_for_a_server_that_does_not_answer(installed, tmp_path):
    template = runpy.run_path(str(ROOT / "targets/templates/folder-watch/app.py"))
    file = tmp_path / "a.json"
    file.write_text(json.dumps(ROW))
    template["write_result"](str(file), make_answer(free_port()))
    assert list(tmp_path.iterdir()) == [file]
    with installed.serve() as server:
        server.wait_until_ready()
        template["write_result"](str(file), make_answer(server.port))
    assert json.loads((tmp_path / "a.json.result.json").read_text())["kind"] == "class"


def test_a_request_that_waits_is_answered_after_the_one_before(own_app):
    with (
        own_app.serve() as server,
        contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as slow,
    ):
        server.wait_until_ready()
        body = b'{"sleep": 5.0, "raise": 1}'
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 26\r\n\r\n" + body
        )
        time.sleep(0.3)
        begin = time.monotonic()
        assert server.ask("GET", "/health").json["ready"] is True
        assert time.monotonic() - begin < 4
        assert server.predict().status == 200
        assert time.monotonic() - begin > 3
        assert b" 500 " in slow.recv(1000)


def test_the_wait_for_other_requests_does_not_shorten_the_time_of_an_answer(own_app):
    app = find_app(str(own_app.prefix), "leaf")
    predictor = Predictor(make_command(app, own_app.served(), ["app-worker"]), answer_s=10.0)
    try:
        assert predictor.wait_until_ready(60)
        slow = json.dumps({**ROW, "sleep": 6.0}).encode()
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(predictor.predict, [slow] * 2, ["application/json"] * 2))
    finally:
        predictor.close()
    assert [answer["media_type"] for answer in answers] == ["application/json"] * 2


def test_a_process_of_the_models_that_stands_still_is_replaced(installed):
    """It does not even read the request, which is larger than a pipe holds."""
    app = find_app(str(installed.prefix), "leaf")
    predictor = Predictor(make_command(app, installed.served(), ["app-worker"]), answer_s=10.0)
    try:
        assert predictor.wait_until_ready(60)
        (worker,) = (p for p in list_children(os.getpid()) if b"app-worker" in read_command(p))
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(AgentError, match="No answer within 10 seconds"):
            predictor.predict(b" " * (1 << 20), "application/json")
        assert predictor.wait_until_ready(60)
        assert predictor.predict(json.dumps(ROW).encode(), "application/json")["kind"] == "class"
    finally:
        predictor.close()
