"""A page in the browser, with the steps that a user does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAIT_S = 10
CSS = "css selector"


class DrivenPage:
    """The page of one app.

    Attributes:
        driver: The browser.
        app: What serves the page, with the requests that it got.
    """

    def __init__(self, driver: Any, app: Any):
        self.driver, self.app = driver, app

    def open(self, *, ready: bool = True) -> None:
        """Load the page, and wait until its input can be used."""
        self.driver.get(self.app.address)
        if ready:
            self.wait(lambda: self.script("return document.documentElement.dataset.ready"))

    def script(self, code: str, *arguments) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(code, *arguments)

    def module(self, code: str, *arguments) -> Any:
        """Run JavaScript that may ``await``, such as an import of a module of the page."""
        wrapped = (
            "const done = arguments[arguments.length - 1];"
            f"(async (...given) => {{ {code} }})(...arguments)"
            ".then(done, (error) => done(`failed: ${error.stack}`));"
        )
        return self.driver.execute_async_script(wrapped, *arguments)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition holds; return its value."""
        end = time.monotonic() + WAIT_S
        while not (value := condition()):
            assert time.monotonic() < end, f"not within {WAIT_S} s"
            time.sleep(0.05)
        return value

    def find(self, selector: str) -> Any:
        """Return the first element of a CSS selector."""
        return self.driver.find_element(CSS, selector)

    def find_all(self, selector: str) -> list[Any]:
        """Return all elements of a CSS selector."""
        return self.driver.find_elements(CSS, selector)

    def text(self, selector: str) -> str:
        """Return the text that a user sees in an element."""
        shown = self.find(selector).text
        return shown.replace("\u2068", "").replace("\u2069", "")

    def button(self, words: str) -> Any:
        """Return the visible button with these words."""
        buttons = [b for b in self.find_all("button") if b.is_displayed()]
        found = [b for b in buttons if b.text == words]
        assert found, f"no {words!r} among {[b.text for b in buttons]}"
        return found[0]

    def choose_file(self, path: Path) -> None:
        """Choose a file, as the dialog of the browser does."""
        self.find("input[type=file]").send_keys(str(path))

    def wait_for(self, selector: str, words: str) -> str:
        """Wait until an element shows these words; return its whole text."""
        try:
            self.wait(lambda: words in self.text(selector))
        except AssertionError as error:
            raise AssertionError(f"{selector}: {self.text(selector)!r}") from error
        return self.text(selector)

    def is_too_wide(self) -> bool:
        """Return whether the page scrolls sideways."""
        return self.script(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )

    def read_console(self) -> list[str]:
        """Return the errors and warnings of the browser's console."""
        entries = self.driver.get_log("browser")
        return [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]
