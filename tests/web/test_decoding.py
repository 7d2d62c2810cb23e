"""Image files are decoded by the browser to the pixels that Pillow reads."""

from __future__ import annotations

import base64
import functools
import io
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.pages.browser import open_browser
from tests.web.node_calls import MODULES

_DECODE = """
const [encoded, type, done] = arguments;
const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
import("/images/decode_image.js")
  .then(({ decodeImage }) => decodeImage(new Blob([bytes], { type })))
  .then(({ width, height, data }) => {
    const parts = [];
    for (let at = 0; at < data.length; at += 8192) {
      parts.push(String.fromCharCode(...data.subarray(at, at + 8192)));
    }
    done({ width, height, data: btoa(parts.join("")) });
  })
  .catch((error) => done({ kind: error.kind, message: error.message }));
"""


class _Handler(SimpleHTTPRequestHandler):
    """Files of the modules, without messages."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """Open a page that may import the modules."""
    handler = functools.partial(_Handler, directory=str(MODULES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_browser() as browser:
            browser.get(f"http://localhost:{server.server_port}/failures.js")
            yield browser
        server.shutdown()


def _decode(page: Any, data: bytes, kind: str) -> Any:
    encoded = base64.b64encode(data).decode()
    return page.execute_async_script(_DECODE, encoded, f"image/{kind}")


def _read(page: Any, data: bytes, kind: str) -> NDArray[np.uint8]:
    found = _decode(page, data, kind)
    assert "data" in found, found
    pixels = np.frombuffer(base64.b64decode(found["data"]), np.uint8)
    return pixels.reshape(found["height"], found["width"], 4)


def _save(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _draw(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(width).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


@pytest.mark.parametrize(
    ("kind", "options"), [("png", {}), ("webp", {"lossless": True}), ("bmp", {})]
)
def test_files_without_loss_are_decoded_exactly(
    page: Any, kind: str, options: dict[str, Any]
) -> None:
    """In color, in gray and with a palette."""
    for image in (_draw(50, 37), _draw(50, 37).convert("L"), _draw(31, 8).quantize(9)):
        data = _save(image.convert("RGB") if kind == "webp" else image, kind, **options)
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(_read(page, data, kind)[..., :3], wanted)


def test_gray_of_16_bits_is_decoded_as_on_devices(page: Any) -> None:
    """To one step of 255: browsers round where devices cut."""
    values = np.random.default_rng(2).integers(0, 65536, (20, 30), dtype=np.uint16)
    found = _read(page, _save(Image.fromarray(values), "png"), "png")[..., 0].astype(int)
    assert np.abs(found - (values >> 8)).max() <= 1


def test_photos_are_decoded_alike(page: Any) -> None:
    """Decoders of JPEG may round differently, by little."""
    for options in ({"quality": 90}, {"quality": 75, "progressive": True}, {"subsampling": 0}):
        data = _save(_draw(161, 93), "jpeg", **options)
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        error = np.abs(_read(page, data, "jpeg")[..., :3].astype(int) - wanted)
        assert error.max() <= 4
        assert error.mean() < 0.5


def test_photos_are_upright(page: Any) -> None:
    """Cameras store how they were held."""
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = _save(_draw(60, 40), "jpeg", exif=exif)
        wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        found = _read(page, data, "jpeg")
        assert found.shape[:2] == (wanted.height, wanted.width)
        error = np.abs(found[..., :3].astype(int) - np.asarray(wanted).astype(int))
        assert error.mean() < 1


def test_images_larger_than_a_canvas_are_read_in_parts(page: Any) -> None:
    """The parts join without gaps."""
    image = _draw(1400, 3500)
    found = _read(page, _save(image, "png"), "png")
    np.testing.assert_array_equal(found[..., :3], np.asarray(image))


def test_files_that_are_no_images_are_refused(page: Any) -> None:
    """In words for people who use the app."""
    for data in (b"", b"text", _save(_draw(50, 50), "png")[:60]):
        found = _decode(page, data, "png")
        assert found["kind"] == "bad_sample", found
        assert "image" in found["message"]
