"""Hostile requests to the server: headers that are false or never end, and bodies that stall."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from patchprism.explorer import guard as guards
from patchprism.explorer.guard import Guard


def run(coroutine):
    """Result of a coroutine, run in a separate thread, because this one may already have a browser's event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


pytest.importorskip("fastapi", reason="the server is an extra")

TOKEN, PORT = "t0ken", 8000


def scope(method="GET", path="/api/limits", headers=()):
    sent = {"host": f"127.0.0.1:{PORT}"} | dict(headers)
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": f"/{TOKEN}{path}",
        "raw_path": f"/{TOKEN}{path}".encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", PORT),
        "headers": [(key.encode(), value.encode("latin-1")) for key, value in sent.items()],
    }


async def answer(app, request, receive=None):
    """Status and body of one request; its own body is empty unless ``receive`` says otherwise."""
    sent = []

    async def empty():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app(request, receive or empty, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def guarded(app):
    return Guard(app, token=TOKEN, host="127.0.0.1", port=PORT, max_upload=1 << 20)


async def fine(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


DIGITS = ["9" * 5000, "²", "٣", "", "-5", "+5", "1_0", "1e3", " 7", "0x7", "7.0"]


@pytest.mark.parametrize("digits", DIGITS)
def test_a_port_that_is_not_a_port(digits):
    host = {"host": f"127.0.0.1:{digits}"} if digits.isascii() else None
    app = guarded(fine)
    if host:
        assert run(answer(app, scope(headers=host)))[0] == 421
    assert not app.host_allowed(f"127.0.0.1:{digits}")
    assert not app.host_allowed(f"[::1]:{digits}")
    origin = {"origin": f"http://127.0.0.1:{digits}"} if digits.isascii() else None
    if origin:
        assert run(answer(app, scope(headers=origin)))[0] == 403


@pytest.mark.parametrize("digits", [each for each in DIGITS if each.isascii()])
def test_a_length_that_is_not_a_length(digits):
    assert run(answer(guarded(fine), scope("POST", headers={"content-length": digits})))[0] == 413


@pytest.mark.parametrize("name", ["host", "origin", "content-length", "sec-fetch-site"])
def test_a_duplicate_header(name):
    request = scope(
        headers={"origin": f"http://127.0.0.1:{PORT}", "content-length": "0", "sec-fetch-site": "none"}
    )
    assert run(answer(guarded(fine), request))[0] == 200
    value = dict(request["headers"])[name.encode()]
    request["headers"].append((name.upper().encode(), value))
    assert run(answer(guarded(fine), request))[0] == 400


def test_a_path_that_is_not_text():
    request = scope()
    request["path"] = "/\udc80/"
    assert run(answer(guarded(fine), request))[0] == 404


def test_a_body_that_stalls_times_out(monkeypatch):
    monkeypatch.setattr(guards, "BODY_PAUSE", 0.05)

    async def stalled():
        await asyncio.Event().wait()

    app = guarded(fine)
    status, text = run(answer(app, scope("POST", "/api/sessions"), stalled))
    assert (status, app.busy) == (408, 0)
    assert b"try again" in text


def test_a_slow_body_times_out(monkeypatch):
    monkeypatch.setattr(guards, "BODY_PAUSE", 0.05)
    calls = []

    async def trickle():
        calls.append(1)
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": len(calls) < 1000}

    assert run(answer(guarded(fine), scope("POST", "/api/sessions"), trickle))[0] == 408
    assert len(calls) < 1000


def test_stalled_uploads_do_not_block_photos_and_are_limited(tmp_path):
    from patchprism.explorer.app import make_app

    photos = SimpleNamespace(read=lambda index: np.zeros((2, 2, 3), np.uint8))

    class View:
        def __init__(self):
            self.photos = photos

        def __len__(self):
            return 1

    session = SimpleNamespace(view=View())
    added = []
    workshop = SimpleNamespace(
        session=lambda name: session,
        add_photo=lambda session, content, name: added.append(content) or name,
        close=lambda: None,
    )
    app = guarded(make_app(workshop, out=tmp_path))
    upload = scope("POST", "/api/sessions/s/photos")

    async def play():
        go = asyncio.Event()

        async def stalled():
            await go.wait()
            return {"type": "http.request", "body": b"photo", "more_body": False}

        held = [asyncio.create_task(answer(app, upload, stalled)) for _ in range(guards.MAX_UPLOADS)]
        while app.uploading < guards.MAX_UPLOADS:
            await asyncio.sleep(0)
        # A server that waits for the uploads would need half a minute; this one answers immediately.
        seen = await asyncio.wait_for(answer(app, scope(path="/api/sessions/s/photos/0")), 30)
        assert seen[0] == 200
        assert (await answer(app, scope("POST", "/api/sessions/s/photos")))[0] == 503
        go.set()
        assert {status for status, _ in await asyncio.gather(*held)} == {200}
        assert (await answer(app, scope("POST", "/api/sessions/s/photos")))[0] == 200

    run(play())
    assert added == [b"photo"] * guards.MAX_UPLOADS + [b""]


@pytest.fixture
def port(monkeypatch):
    """A server that answers with one word and waits a fraction of a second for headers."""
    import uvicorn

    from patchprism.explorer import patience

    monkeypatch.setattr(patience, "HEADER_SECONDS", 0.3)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    config = uvicorn.Config(
        fine, log_level="critical", lifespan="off", http=patience.ImpatientProtocol, timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield bound.getsockname()[1]
    server.should_exit = True
    thread.join()
    bound.close()


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", REQUEST[:-2], REQUEST + b"GET"])
def test_headers_that_never_end_time_out(port, sent):
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(sent)
        received = b""
        while more := connection.recv(
            1 << 16
        ):  # until the server closes the connection; after 30 seconds this raises
            received += more
        assert (b"fine" in received) == (REQUEST in sent)


def test_a_request_that_is_answered_slowly_does_not_time_out(port):
    """The time limit is only for headers, so connections that are in use or idle between requests stay open."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        for letter in b"abc":
            threading.Event().wait(0.2)
            connection.sendall(bytes([letter]))
        received = b""
        while b"fine" not in received:
            more = connection.recv(1 << 16)
            assert more, "the server closed the connection"
            received += more


def failures():
    """One instance of each exception that PatchPrism raises on purpose."""
    from patchprism import errors
    from patchprism.explorer import work  # noqa: F401  (so that its exceptions are found, too)

    made = {
        errors.PhotoError: ("a.png", "is gone"),
        errors.ExtraError: ("video", "reading clips"),
        errors.OutputError: ("out/results.png", "it exists already"),
    }
    kinds, found = [errors.PatchPrismError], []
    for kind in kinds:
        kinds += kind.__subclasses__()
        found.append(kind(*made.get(kind, ("something is not right",))))
    return found


@pytest.mark.parametrize(
    "error",
    [*failures(), PermissionError(13, "Permission denied", "out"), MemoryError(), OSError("no more")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/models", None),
        ("POST", "/api/sessions", None),
        ("GET", "/api/sessions/s/photos/0", None),
        ("POST", "/api/sessions/s/fit", "{}"),
        (
            "POST",
            "/api/sessions/s/save",
            '{"mask_threshold": 0.5, "mask_side": "above", "opening": 0, "closing": 0, "scaling": "minmax", '
            '"components": [1, 2, 3]}',
        ),
    ],
)
def test_errors_of_users_are_not_server_errors(tmp_path, monkeypatch, error, method, path, body):
    """Every exception gives its status and one line, whatever raises it."""
    import json

    from patchprism.explorer import app as apps

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(apps, "models_here", fail)
    view = type("View", (), {"__len__": lambda _: 1, "photos": SimpleNamespace(read=fail), "label": "toy"})()
    view.record = SimpleNamespace(name="toy")
    workshop = SimpleNamespace(
        first=(view, b""),
        open=fail,
        session=lambda _: SimpleNamespace(view=view),
        start=fail,
        save=fail,
        close=lambda: None,
    )
    request = scope(method, path, {"content-type": "application/json"})
    request["path"] = path

    async def receive():
        return {"type": "http.request", "body": (body or "").encode(), "more_body": False}

    status, text = run(answer(apps.make_app(workshop, out=tmp_path), request, receive))
    assert status == 503 if isinstance(error, MemoryError) else 400 <= status < 500, (status, text)
    said = json.loads(text)["error"]
    assert said
    assert "\n" not in said
    if str(error) and not isinstance(error, OSError):
        assert said == str(error)


def test_a_save_that_would_replace_a_users_file_is_a_conflict(tmp_path, monkeypatch):
    import json

    import toys

    import patchprism
    from patchprism.explorer.app import make_app
    from patchprism.explorer.build import build_message
    from patchprism.explorer.work import Workshop

    toy = toys.Toy()
    view = patchprism.visualize(toys.make_photos(tmp_path / "p", 1), backbone=toy, size=32)
    workshop = Workshop(view, build_message(view).to_bytes(), toy)
    shown = {"mask_threshold": 0.5, "mask_side": "above", "opening": 0, "closing": 0, "scaling": "minmax"}
    body = json.dumps(shown | {"components": [1, 2, 3]}).encode()

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    def save(out):
        request = scope("POST", "", {"content-type": "application/json"})
        request["path"] = f"/api/sessions/{workshop.open()}/save"
        return run(answer(make_app(workshop, out=out), request, receive))

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.png").write_bytes(b"mine")
    try:
        status, text = save(tmp_path / "out")
        assert (status, b"it exists already" in text) == (409, True)
        assert (tmp_path / "out" / "results.png").read_bytes() == b"mine"
        assert [each.name for each in (tmp_path / "out").iterdir()] == ["results.png"]
        assert save(tmp_path / "out" / "results.png" / "x")[0] == 409
        assert save(tmp_path / "p" / "p0000.png")[0] == 409
        assert save(tmp_path / ("x" * 300))[0] == 409
        assert save(tmp_path / "new")[0] == 200
    finally:
        workshop.close()
