"""A browser for all tests of the pages, and a page opened in it."""

from __future__ import annotations

import io
from contextlib import ExitStack

import numpy as np
import pytest

from tests.pages.browser import DEVICES, open_browser, set_width
from tests.pages.driven_page import DrivenPage
from tests.pages.page_server import serve_app


@pytest.fixture(scope="session")
def browser():
    with open_browser(*DEVICES) as driver:
        yield driver


@pytest.fixture
def open_page(browser):
    """Open the page of an app: settings of :class:`App`, and the width of the window."""
    with ExitStack() as servers:

        def open_one(*, width: int = 1280, dark: bool = False, ready: bool = True, **settings):
            app = servers.enter_context(serve_app(**settings))
            set_width(browser, width, dark=dark)
            page = DrivenPage(browser, app)
            page.open(ready=ready)
            return page

        yield open_one
        browser.get("about:blank")
        browser.get_log("browser")


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """Return a function that saves a photo of a size and returns its path."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    folder = tmp_path_factory.mktemp("photos")

    def save(width=320, height=240, *, name="photo.jpg", orientation=None):
        rows, columns = np.mgrid[0:120, 0:160]
        parts = [60 + columns * 0.8, 90 + 60 * np.sin(rows / 13), 160 - rows * 0.8]
        picture = image.fromarray(np.stack(parts, -1).astype(np.uint8)).resize((width, height))
        exif = picture.getexif()
        if orientation:
            exif[0x0112] = orientation
        picture.save(folder / name, quality=92, exif=exif)
        return folder / name

    return save


def read_size(data: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        return opened.size
