"""A web app in a browser: opened, asked and watched."""

import base64
import json
import time
from urllib.parse import urlsplit

_READY_S = 90
_CALL = """
const [name, argument, done] = arguments;
const isImage = argument?.image64 !== undefined;
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const sample = isImage ? new Blob([decode(argument.image64)]) : argument;
import(new URL("backend-web.js", document.baseURI).href)
  .then((backend) => backend[name](sample))
  .then((result) => done({ result }), (error) => done({ error: String(error.message ?? error) }));
"""
# Until its script starts, the page holds the message as well, invisible for the first seconds.
_FAILED = "return document.getElementById('not-loaded')?.classList.contains('now') === true"
_OFFLINE = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}


class AppDriver:
    """Functions for one page; ``address`` is that of the last one that was opened."""

    def __init__(self, browser):
        self.browser = browser
        self.address = ""

    def forget(self):
        """Remove everything that pages have stored, and go online."""
        self.set_offline(False)
        if self.address:
            origin = "{0.scheme}://{0.netloc}".format(urlsplit(self.address))
            values = {"origin": origin, "storageTypes": "all"}
            self.browser.execute_cdp_cmd("Storage.clearDataForOrigin", values)
        self.browser.get("about:blank")
        self.read_errors()
        self.read_requests()

    def open(self, address=""):
        """Open a page, or load it again, and wait until it is ready."""
        self.address = address or self.address
        self.browser.get(self.address)
        self.wait("document.documentElement.dataset.ready === 'true'")

    def wait(self, condition):
        """Wait until a condition in JavaScript holds."""
        end = time.monotonic() + _READY_S
        while not self.browser.execute_script(f"return Boolean({condition})"):
            failed = self.browser.execute_script(_FAILED)
            assert not failed, self.read_text()
            assert time.monotonic() < end, f"{condition}; {self.read_text()}"
            time.sleep(0.05)

    def set_offline(self, is_offline):
        """Cut or restore the network of the browser."""
        self.browser.execute_cdp_cmd("Network.enable", {})
        values = {**_OFFLINE, "offline": is_offline}
        if not is_offline:
            values |= {"downloadThroughput": -1, "uploadThroughput": -1}
        self.browser.execute_cdp_cmd("Network.emulateNetworkConditions", values)

    def predict(self, sample):
        """Ask the backend of the page for its answer to the bytes of an image, or to a row."""
        if isinstance(sample, bytes):
            sample = {"image64": base64.b64encode(sample).decode()}
        return self.call("predict", sample)

    def call(self, name, argument=None):
        answer = self.browser.execute_async_script(_CALL, name, argument)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def wait_for_check(self):
        """Return the state of the app after its self-check."""
        end = time.monotonic() + _READY_S
        while True:
            state = self.call("health")
            if state["check"]["state"] not in ("running", "unknown"):
                return state
            assert time.monotonic() < end, state
            time.sleep(0.05)

    def read_text(self):
        """Return the text of the page."""
        return self.browser.execute_script("return document.body?.innerText ?? ''")

    def read_errors(self):
        """Return what the console said since the last call."""
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def read_requests(self):
        """Return the addresses that were requested since the last call."""
        events = (json.loads(e["message"])["message"] for e in self.browser.get_log("performance"))
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
