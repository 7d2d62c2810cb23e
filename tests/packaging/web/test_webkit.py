"""A web app in WebKitGTK, the browser engine that is the closest to that of an iPad here."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.packaging.web.driven_app import AppDriver
from tests.packaging.web.served_app import serve

# Selenium warns of its own call.
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:setting remote_server_addr:DeprecationWarning"),
]

BROWSERS = Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser")


@contextmanager
def start_display():
    """Start a screen in memory; yield its name."""
    program = shutil.which("Xvfb") or pytest.skip("no Xvfb on this machine")
    reading, writing = os.pipe()
    command = [
        program,
        "-displayfd",
        str(writing),
        "-screen",
        "0",
        "1280x900x24",
        "-nolisten",
        "tcp",
    ]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as process:
        os.close(writing)
        try:
            with os.fdopen(reading) as answer:
                yield f":{answer.readline().strip()}"
        finally:
            process.terminate()


@pytest.fixture
def webkit(tmp_path):
    """A page in WebKitGTK."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver = shutil.which("WebKitWebDriver") or pytest.skip("no WebKitWebDriver on this machine")
    program = next(BROWSERS, None) or pytest.skip("no MiniBrowser of WebKitGTK on this machine")
    options = webdriver.WebKitGTKOptions()
    options.binary_location = str(program)
    options.add_argument("--automation")
    with start_display() as display:
        environment = os.environ | {
            "DISPLAY": display,
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path),
            "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",  # tests may run as root
        }
        service = webdriver.WebKitGTKService(driver, env=environment)
        browser = webdriver.WebKitGTK(options=options, service=service)
        try:
            browser.set_script_timeout(60)
            yield AppDriver(browser)
        finally:
            browser.quit()


def test_the_app_answers_in_webkit_also_without_its_server(
    webkit, package_colors, colors, tmp_path
):
    package_colors(tmp_path / "app", build="int8")
    images = sorted((colors / "images").rglob("*.png"))[:9]
    with serve(tmp_path / "app") as server:
        webkit.open(server.addresses[0])
        state = webkit.wait_for_check()
        online = [webkit.predict(path.read_bytes())["result"] for path in images]
    assert state["check"]["state"] == "same"
    assert state["check"]["error"] <= 1e-4
    assert state["offline"]
    time.sleep(0.5)
    webkit.open()
    assert [webkit.predict(path.read_bytes())["result"] for path in images] == online
