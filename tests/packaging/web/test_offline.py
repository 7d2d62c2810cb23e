"""Web apps in a browser: right answers, without a network, without requests elsewhere."""

import base64
import hashlib
import json
from urllib.parse import urlsplit

import numpy as np
import pytest

from edgekit_agent.session import Session
from tests.packaging.web.conftest import COLORS, SAMPLES
from tests.packaging.web.served_app import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def read_images(colors):
    return [(p.parent.name, p.read_bytes()) for p in sorted((colors / "images").rglob("*.png"))]


@pytest.fixture(scope="module")
def images(colors):
    found = read_images(colors)
    assert len(found) == SAMPLES
    return found


@pytest.mark.parametrize("build", ["float", "int8"])
def test_without_a_network_the_page_answers_as_the_host_does(
    app_driver, package_colors, colors, images, tmp_path, build
):
    report = package_colors(tmp_path / "app", build=build)
    with serve(tmp_path / "app") as server:
        app_driver.open(server.addresses[0])
    app_driver.set_offline(True)
    app_driver.open()
    assert app_driver.browser.execute_script("return self.crossOriginIsolated")

    state = app_driver.wait_for_check()
    assert state["check"]["state"] == "same"
    assert state["check"]["error"] <= 1e-4, "this browser computes as onnxruntime does"
    assert state["offline"]

    session = Session(str(colors / "build" / build))
    here = [session.predict(image)["result"] for _, image in images]
    there = [app_driver.predict(image) for _, image in images]
    right_here = sum(found == label for found, (label, _) in zip(here, images, strict=True))
    found = [answer["result"] for answer in there]
    right_there = sum(one == label for one, (label, _) in zip(found, images, strict=True))
    assert SAMPLES * 0.6 < right_here < SAMPLES, "neither trivial nor hopeless"
    assert abs(right_there - right_here) <= 2
    assert set(found) == set(COLORS)
    assert all(0 < answer["confidence"] <= 1 and answer["ms"] > 0 for answer in there)
    assert app_driver.read_errors() == []
    assert report.gzip_bytes < 12_000_000


def test_a_photo_that_a_user_chooses_is_answered_on_the_page(
    app_driver, package_colors, colors, images, tmp_path
):
    package_colors(tmp_path / "app", title="Colors of the ward", ui={"accuracy": "9 of 10 right."})
    label, path = "red", next((colors / "images" / "red").glob("*.png"))
    with serve(tmp_path / "app") as server:
        app_driver.open(server.addresses[0])
        picker = app_driver.browser.find_element("css selector", "input[type=file]")
        picker.send_keys(str(path))
        app_driver.wait("document.getElementById('latency').textContent")
        text = app_driver.read_text()
    answer = app_driver.predict(path.read_bytes())["result"]
    assert answer in text.partition("Result")[2], text
    assert label in COLORS
    for words in ("Colors of the ward", "9 of 10 right.", "Not a medical device.", "1.0.0"):
        assert words in text


def test_no_request_leaves_the_origin_and_the_console_is_silent(
    app_driver, package_colors, images, tmp_path
):
    package_colors(tmp_path / "app")
    with serve(tmp_path / "app") as server:
        app_driver.open(server.addresses[0])
        app_driver.wait_for_check()
        app_driver.predict(images[0][1])
        requests = app_driver.read_requests()
        assert len(requests) > 20
        own = urlsplit(server.addresses[0]).netloc
        assert {urlsplit(url).netloc for url in requests if url.startswith("http")} == {own}
        assert app_driver.read_errors() == []
        answer = app_driver.browser.execute_async_script(
            "const done = arguments[0];"
            "fetch('https://example.org/').then(() => done('sent'), (e) => done(e.name))"
        )
        assert answer == "TypeError"
        (said,) = app_driver.read_errors()[:1]
        assert "Content Security Policy" in said


def test_the_page_can_be_installed(app_driver, package_colors, tmp_path):
    package_colors(tmp_path / "app", title="Colors")
    with serve(tmp_path / "app") as server:
        app_driver.open(server.addresses[0])
        manifest = app_driver.browser.execute_cdp_cmd("Page.getAppManifest", {})
        problems = app_driver.browser.execute_cdp_cmd("Page.getInstallabilityErrors", {})
        controlled = app_driver.browser.execute_script(
            "return navigator.serviceWorker.controller.state"
        )
    assert manifest["errors"] == []
    told = json.loads(manifest["data"])
    assert told["name"] == "Colors"
    assert {icon["sizes"] for icon in told["icons"]} == {"192x192", "512x512"}
    # A window without a profile installs nothing, whatever the page is.
    told_errors = {each["errorId"] for each in problems["installabilityErrors"]}
    assert told_errors <= {"in-incognito"}
    assert controlled == "activated"


def read_version(app_driver):
    return app_driver.browser.execute_script("return document.getElementById('facts').innerText")


def test_a_new_version_is_served_once_it_is_whole(app_driver, package_colors, images, tmp_path):
    first = package_colors(tmp_path / "app", version="1.0.0")
    with serve(tmp_path / "app") as server:
        port = server.port
        app_driver.open(server.addresses[0])
        assert "1.0.0" in read_version(app_driver)
    second = package_colors(tmp_path / "app", version="2.0.0", build="int8")
    assert second.release != first.release

    model = tmp_path / "app" / "models" / "main" / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    with serve(tmp_path / "app", port=port):
        app_driver.open()
        app_driver.wait("navigator.serviceWorker.getRegistration().then((r) => !r.installing)")
        app_driver.browser.execute_async_script(
            "const done = arguments[0];"
            "navigator.serviceWorker.getRegistration()"
            ".then((r) => r.update()).then(done, () => done(null))"
        )
        app_driver.open()
        assert "1.0.0" in read_version(app_driver), "a file of the new version is damaged"
        app_driver.predict(images[0][1])

        model.write_bytes(whole)
        app_driver.browser.execute_async_script(
            "const done = arguments[0];"
            "const look = (r) => (r.waiting ? done() : setTimeout(look, 100, r));"
            "navigator.serviceWorker.getRegistration().then((r) => r.update().then(() => look(r)))"
        )
        assert "1.0.0" in read_version(app_driver), "an open page keeps its version"
        app_driver.open()
        app_driver.wait("document.getElementById('facts').innerText.includes('2.0.0')")
    app_driver.set_offline(True)
    app_driver.open()
    assert "2.0.0" in read_version(app_driver)
    assert app_driver.wait_for_check()["check"]["state"] == "same"
    caches = app_driver.browser.execute_async_script("caches.keys().then(arguments[0])")
    assert caches == [f"edgekit-colors-{second.release}"]


READ = """
const [path, done] = arguments;
fetch(path).then((r) => r.text()).then((text) => done({ text }), () => done({ text: null }));
"""
DROP = """
const [path, done] = arguments;
caches.keys().then(([name]) => caches.open(name))
  .then((cache) => cache.delete(new URL(path, document.baseURI).href)).then(done);
"""


def test_a_file_that_the_browser_has_dropped_is_fetched_again(app_driver, package_colors, tmp_path):
    """It is never taken from another release that the server has by now."""
    package_colors(tmp_path / "app")
    file, browser = tmp_path / "app" / "page.css", app_driver.browser
    own = file.read_text()
    with serve(tmp_path / "app") as server:
        app_driver.open(server.addresses[0])
        assert browser.execute_async_script(DROP, "page.css") is True
        file.write_text("body { content: 'of another release' }")
        assert browser.execute_async_script(READ, "page.css")["text"] is None
        file.write_text(own)
        assert browser.execute_async_script(READ, "page.css")["text"] == own
    app_driver.set_offline(True)
    assert browser.execute_async_script(READ, "page.css")["text"] == own


def test_a_browser_whose_storage_is_full_still_answers(
    app_driver, package_colors, images, tmp_path
):
    package_colors(tmp_path / "app")
    with serve(tmp_path / "app") as server:
        address = server.addresses[0]
        quota = {"origin": address.rstrip("/"), "quotaSize": 1 << 20}
        app_driver.browser.execute_cdp_cmd("Storage.overrideQuotaForOrigin", quota)
        app_driver.open(address)
        assert app_driver.predict(images[0][1])["kind"] == "class"
        assert app_driver.call("health")["offline"] is False
        del quota["quotaSize"]
        app_driver.browser.execute_cdp_cmd("Storage.overrideQuotaForOrigin", quota)
        app_driver.open()
        assert app_driver.call("health")["offline"] is True
        assert app_driver.predict(images[0][1])["kind"] == "class"


def test_a_second_tab_keeps_the_version_of_the_first(app_driver, package_colors, images, tmp_path):
    package_colors(tmp_path / "app", version="1.0.0")
    browser = app_driver.browser
    with serve(tmp_path / "app") as server:
        port = server.port
        app_driver.open(server.addresses[0])
        package_colors(tmp_path / "app", version="2.0.0", build="int8")
    with serve(tmp_path / "app", port=port):
        first = browser.current_window_handle
        browser.switch_to.new_window("tab")
        try:
            app_driver.open()
            browser.execute_async_script(
                "const done = arguments[0];"
                "const look = (r) => (r.waiting ? done() : setTimeout(look, 100, r));"
                "navigator.serviceWorker.getRegistration()"
                ".then((r) => r.update().then(() => look(r)))"
            )
            app_driver.open()
            assert "1.0.0" in read_version(app_driver)
            assert app_driver.predict(images[0][1])["kind"] == "class"
        finally:
            browser.close()
            browser.switch_to.window(first)
        assert app_driver.predict(images[0][1])["kind"] == "class"
        app_driver.open()
        app_driver.wait("document.getElementById('facts').innerText.includes('2.0.0')")


def test_code_of_the_app_answers(app_driver, package_colors, images, tmp_path):
    code = b"""
    export async function answer(models, sample) {
      const found = await models.main.predict(sample);
      return { ...found, result: `mostly ${found.result}` };
    }
    """
    package_colors(tmp_path / "app", files={"answer.js": code})
    with serve(tmp_path / "app") as server:
        app_driver.open(server.addresses[0])
        assert app_driver.predict(images[0][1])["result"].startswith("mostly ")


def test_a_model_that_computes_differently_is_told(app_driver, package_colors, tmp_path):
    package_colors(tmp_path / "app")
    folder = tmp_path / "app" / "models" / "main"
    golden = json.loads((folder / "golden.json").read_text())
    outputs = golden["outputs"]["logits"]
    count = np.prod(outputs["shape"])
    wrong = np.linspace(-9, 9, count).astype(outputs["dtype"]).tobytes()
    outputs["data"] = base64.b64encode(wrong).decode()
    text = json.dumps(golden).encode()
    worker = (tmp_path / "app" / "sw.js").read_text()
    old = (folder / "golden.json").read_bytes()
    worker = worker.replace(hashlib.sha256(old).hexdigest(), hashlib.sha256(text).hexdigest())
    (tmp_path / "app" / "sw.js").write_text(worker)
    (folder / "golden.json").write_bytes(text)
    with serve(tmp_path / "app") as server:
        app_driver.open(server.addresses[0])
        state = app_driver.wait_for_check()
        app_driver.wait("!document.getElementById('warning').hidden")
    assert state["check"]["state"] == "different"
    assert "Do not rely on the results" in app_driver.read_text()
