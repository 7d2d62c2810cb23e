"""The app of every template is packaged, installs, and answers as the model does on the host."""

import contextlib
import functools
import json

import pytest

from edgekit_agent.session import Session
from tests.builders.apps.device import Device, wait_for
from tests.builders.projects import edgekit
from tests.packaging.template_apps import (
    MEDIA_TYPES,
    PROJECTS,
    draw_gray,
    make_template_app,
    read_samples,
)
from tests.web.answer_checks import compare_answers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The folder that the app of the template folder-watch reads."""
    return tmp_path_factory.mktemp("watched") / "incoming"


@pytest.fixture(scope="module")
def start(shared_cache, tmp_path_factory, watched):
    """Return a function that packages, installs and starts the app of a template, once.

    All apps are on one device, so that they share the runtime that the first one installs.
    """
    device = Device(tmp_path_factory.mktemp("device"))
    device.environment["WATCH_FOLDER"] = str(watched)
    with contextlib.ExitStack() as opened:
        patch = opened.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("EDGEKIT_CACHE", str(shared_cache))

        @functools.cache
        def begin(template):
            app = make_template_app(template, tmp_path_factory.mktemp(template))
            file = app.folder.with_suffix(".run")
            done = edgekit("package", "--app", app.folder, "--target", "linux", "-o", file)
            assert done.code == 0, done.err
            installed = device.install(file)
            assert installed.returncode == 0, installed.stderr
            server = opened.enter_context(device.serve(name=template))
            server.wait_until_ready()
            return app, server, opened.enter_context(Session(str(app.bundle)))

        yield begin


@pytest.mark.parametrize("template", list(PROJECTS))
def test_the_app_of_a_template_answers_as_the_model_does_on_the_host(start, template):
    app, server, session = start(template)
    health = server.ask("GET", "/health").json
    assert (health["name"], health["version"]) == (template, "1.0.0")
    media_type = MEDIA_TYPES[template]
    results = []
    for body, label in read_samples(app):
        reply = server.predict(body, media_type)
        wanted = session.predict_bytes(body, media_type)
        assert reply.status == 200, reply.body
        compare_answers([reply.json], [wanted])
        assert reply.json["ms"] > 0
        results.append((json.dumps(reply.json["result"]), label))
    assert len(set(results)) > 1, "the answers depend on the sample"
    told = [(json.loads(found), label) for found, label in results if label is not None]
    assert sum(found == label for found, label in told) >= 0.8 * len(told)
    for wrong in (b"", b"\x00\xff" * 20):
        refused = server.predict(wrong, media_type)
        assert (refused.status, refused.json["error"]["code"]) == (400, "bad_sample")


def test_a_classifier_that_is_not_sure_says_so(start):
    app, server, session = start("image-classifier")
    gray = draw_gray(120)
    answer = server.predict(gray, "image/png").json
    assert answer["confidence"] == pytest.approx(1 / 3, abs=0.01)
    assert answer["note"] == "The model is not sure; take another picture."
    sure, _ = read_samples(app, 1)[0]
    assert session.predict(sure)["confidence"] > 0.5
    assert "note" not in server.predict(sure, "image/png").json


def test_the_page_records_at_the_rate_and_in_the_windows_of_the_model(start):
    _, server, session = start("audio")
    audio = session.settings.audio
    config = server.ask("GET", "/config.json").json
    assert config["audio"]["sample_rate"] == audio.rate != 16000
    assert config["audio"]["window_s"] * audio.rate == audio.samples


def test_a_detector_leaves_out_boxes_of_low_confidence(start):
    _, server, session = start("detector")
    dim = draw_gray(60)
    (box,) = session.predict(dim)["result"]
    assert 0 < box["confidence"] < 0.3
    answer = server.predict(dim, "image/png").json
    assert (answer["result"], answer["confidence"]) == ([], None)
    assert server.ask("GET", "/health").json["ready"]


def test_a_watched_folder_holds_an_answer_for_each_new_file(start, watched):
    app, _, session = start("folder-watch")
    wait_for(watched.is_dir)
    bodies = {f"{n}.png": body for n, (body, _) in enumerate(read_samples(app, 3))}
    others = {"broken.png": b"no picture", "notes.doc": b"left alone"}
    for name, body in {**bodies, **others}.items():
        (watched / name).write_bytes(body)
    results = {name: watched / f"{name}.result.json" for name in (*bodies, "broken.png")}
    wait_for(lambda: all(path.is_file() for path in results.values()))
    found = {name: json.loads(path.read_text()) for name, path in results.items()}
    assert all(answer.pop("file") == name for name, answer in found.items())
    assert "image" in found.pop("broken.png")["error"]
    compare_answers(list(found.values()), [session.predict(body) for body in bodies.values()])
    assert not (watched / "notes.doc.result.json").exists()
