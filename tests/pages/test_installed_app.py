"""The page as an installed app serves it, with the app's own policy and answers."""

import json
from types import SimpleNamespace

import pytest

from tests.builders.apps.device import ROW, Device
from tests.builders.apps.packages import draft_package
from tests.builders.servers import make_bundle
from tests.pages.driven_page import DrivenPage
from tests.pages.page_server import CONFIG, PAGES

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A device with an app of five classes that shows the shipped page."""
    folder = tmp_path_factory.mktemp("app")
    make_bundle(folder / "leaf", width=5)
    fields = [{"name": f"value {n}", "type": "number", "value": n} for n in range(3)]
    config = {**CONFIG, "title": "Leaf check", "input": "form", "fields": fields}
    files = {f"pages/{p.relative_to(PAGES)}": p.read_bytes() for p in PAGES.rglob("*.*")}
    draft = draft_package(folder / "leaf").replace(
        {**files, "pages/config.json": json.dumps(config).encode()}
    )
    device = Device(folder / "device")
    done = device.install(draft.write(folder / "leaf.run"))
    assert done.returncode == 0, done.stderr
    return device


def test_an_installed_app_shows_its_page_and_answers(browser, installed):
    with installed.serve() as server:
        app = SimpleNamespace(address=f"http://127.0.0.1:{server.port}/")
        page = DrivenPage(browser, app)
        page.open()
        page.wait_for("#fact_check", "This device computes as the original did.")
        assert page.text("h1") == "Leaf check"
        assert page.read_console() == []
        ask = (
            "const backend = await import('./backend-http.js');"
            "return backend.predict(given[0], {});"
        )
        answer = page.module(ask, ROW)
        assert answer["kind"] == "class"
        assert len(answer["classes"]) == 5
        # The model takes other fields than the form has: the words are those of the app.
        page.button("Get the result").click()
        page.wait(lambda: page.find("#problem").text)
        assert "value 0" in page.text("#problem")
        browser.get("about:blank")
