"""The served page in a real browser, and bad requests to the server."""

from __future__ import annotations

import concurrent.futures
import http.client
import io
import json
import signal
import socket
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from patchprism.explorer import Message
from patchprism.explorer.guard import Guard
from patchprism.prism.estimator import Prism
from patchprism.support.arrays import to_uint8

MODEL, SIZE = "efficientnet_lite2", 160  # like the view in conftest.py


def ask(served, method, path, body=None, headers=None, token=None):
    """Send a request; returns the status and the answer, parsed if it is JSON."""
    connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
    connection.request(method, f"/{token or served.token}{path}", body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.headers.get_content_type() == "application/json":
        content = json.loads(content)
    return answer.status, content, answer.headers


@pytest.fixture
def session(served):
    status, answer, _ = ask(served, "POST", "/api/sessions")
    assert status == 200
    yield f"/api/sessions/{answer['session']}"
    # After any request, the server still works and has its colours.
    status, content, _ = ask(served, "GET", f"/api/sessions/{answer['session']}/message")
    assert status == 200
    assert Message.from_bytes(content).header["photos"]


def as_json(value):
    return {"body": json.dumps(value), "headers": {"Content-Type": "application/json"}}


def wait(served, session):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        job = ask(served, "GET", f"{session}/job")[1]
        if job["state"] in ("done", "failed", "stopped"):
            return job
        time.sleep(0.05)
    raise AssertionError("the job does not end")


def until(page, expression):
    """Wait for an expression in the page; Playwright's method uses eval, which the page's policy forbids."""
    end = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not: {expression}"
        time.sleep(0.05)


def jpeg(seed=0, size=(90, 120)):
    y, x = np.mgrid[: size[0], : size[1]]
    photo = np.stack([x + 40 * seed, y, x + y], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG")
    return buffer.getvalue()


# -- the page -------------------------------------------------------------------------------------------------


def test_the_served_page_shows_and_adds_photos_refits_and_saves(served, watch, view, tmp_path):
    watched = watch(served.address)
    page = watched.page
    for i, part in enumerate(view.parts):
        pixels = watched.canvas(i)
        np.testing.assert_array_equal(pixels[part.foreground][:, :3], to_uint8(part.rgb[part.foreground]))
    # A photo and a corrupt file are dropped together: there is one message and one new photo.
    (tmp_path / "new one.jpg").write_bytes(jpeg())
    (tmp_path / "broken.jpg").write_bytes(jpeg()[:300])
    page.set_input_files("#files", [tmp_path / "broken.jpg", tmp_path / "new one.jpg"])
    until(page, "patchprism.model.photos.length === 4")
    until(page, "document.getElementById('message').textContent.includes('broken.jpg')")
    assert page.locator(".name").all_inner_texts()[3] == "new one.jpg"
    # Fit again on the shown foreground.
    page.locator("#threshold").fill("0.4")
    page.locator("#refit").click()
    until(page, "patchprism.model.header.fit.threshold === 0.4 && !patchprism.working")
    import patchprism

    with Image.open(tmp_path / "new one.jpg") as photo:
        again = patchprism.visualize(
            [*(str(name) for name in view.names), np.asarray(photo.convert("RGB"))],
            model=MODEL,
            size=SIZE,
            threshold=0.4,
            foreground=view.prism.method_,
        )
    watched.frame()
    for i, part in enumerate(again.parts):
        pixels = watched.canvas(i)
        np.testing.assert_array_equal(pixels[..., 3] > 0, part.foreground)
        np.testing.assert_allclose(
            pixels[part.foreground][:, :3].astype(int),
            to_uint8(part.rgb[part.foreground]).astype(int),
            atol=1,
        )
    page.locator("#save").click()
    until(page, "document.getElementById('toast').textContent.startsWith('Saved')")
    saved = np.asarray(Image.open(served.folder / "explored" / "cat.pca.png"))
    np.testing.assert_allclose(saved.astype(int), again.picture(0).astype(int), atol=1)
    # At the photo's resolution, over the original photo, which the server has.
    page.locator("input[name=mode][value=overlay]").check(force=True)
    with page.expect_download() as waiting:
        page.get_by_label("Download the picture of cat.png").click()
    shown = np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)
    np.testing.assert_allclose(
        shown, again.picture(0, overlay_alpha=0.6, upsample="nearest").astype(int), atol=1
    )
    assert watched.left_the_page(served.address) == []


def test_a_view_is_kept_over_other_fits_and_undo_returns_to_it(served, watch, tmp_path):
    watched = watch(served.address)
    page = watched.page
    until(page, "document.getElementById('model').value === 'efficientnet_lite2'")
    page.locator("#opening").fill("1")
    page.mouse.click(*watched.patch_place(1, 3, 5))
    page.evaluate("patchprism.history.cut()")
    page.locator("#threshold").fill("0.4")
    watched.frame()
    first = page.evaluate("patchprism.state")
    fit = page.evaluate("patchprism.model.header.fit.threshold")
    page.locator("#refit").click()
    until(page, "patchprism.model.header.fit.threshold === 0.4 && !patchprism.working")
    kept = page.evaluate("patchprism.state")
    assert (kept["pins"], kept["opening"]) == (first["pins"], 1)
    page.keyboard.press("Control+z")
    until(page, f"patchprism.model.header.fit.threshold === {fit}")
    assert page.evaluate("patchprism.state") == first
    page.keyboard.press("Control+Shift+z")
    until(page, "patchprism.model.header.fit.threshold === 0.4")
    # With another photo, scores change, so the threshold is not kept.
    (tmp_path / "one more.jpg").write_bytes(jpeg())
    page.set_input_files("#files", [tmp_path / "one more.jpg"])
    until(page, "patchprism.model.photos.length === 4 && !patchprism.working")
    assert page.evaluate("patchprism.model.header.fit.threshold") != 0.4
    kept = page.evaluate("patchprism.state")
    assert kept["threshold"] == page.evaluate("patchprism.model.header.fit.threshold")
    assert (kept["pins"], kept["opening"]) == (first["pins"], 1)
    # The foreground method is a control. The photo is removed again, and the pins stay.
    assert page.locator("#method").input_value() == "auto"
    page.locator("#method").select_option("pca")
    until(page, "patchprism.model.header.fit.method === 'pca' && !patchprism.working")
    assert "lie on the photos’ borders" in page.locator("#fit-note").inner_text().replace("'", "’")
    page.locator(".tile").nth(3).hover()
    page.get_by_label("Remove one more.jpg").click()
    until(page, "patchprism.model.photos.length === 3 && !patchprism.working")
    assert page.evaluate("patchprism.state.pins") == first["pins"]
    page.locator("#method").select_option("auto")
    until(page, "patchprism.model.header.command.foreground === 'auto' && !patchprism.working")
    # A link to this fit opens it in another tab.
    page.evaluate(
        "navigator.clipboard.writeText = (text) => { globalThis.copied = text; return Promise.resolve(); }"
    )
    page.locator("#threshold").fill("0.3")
    page.locator("#refit").click()
    until(page, "patchprism.model.header.fit.threshold === 0.3 && !patchprism.working")
    page.locator("#link").click()
    until(page, "globalThis.copied")
    other = watch(page.evaluate("copied")).page
    assert other.evaluate("patchprism.model.header.fit.threshold") == 0.3
    assert other.evaluate("patchprism.state.pins") == first["pins"]


def test_two_tabs_do_not_disturb_each_other(served, watch):
    one, two = watch(served.address), watch(served.address)
    one.page.locator("#threshold").fill("0.7")
    one.page.locator("#refit").click()
    until(one.page, "patchprism.model.header.fit.threshold === 0.7")
    two.page.reload()
    two.page.wait_for_selector("html[data-ready=true]")
    assert two.page.evaluate("patchprism.model.header.fit.threshold") != 0.7
    # A reloaded tab shows its own fit.
    one.page.reload()
    one.page.wait_for_selector("html[data-ready=true]")
    assert one.page.evaluate("patchprism.model.header.fit.threshold") == 0.7


def test_a_fit_that_fails_keeps_the_view(served, watch):
    watched = watch(served.address)
    before = watched.canvas(0)
    watched.page.evaluate("patchprism.change({ threshold: 1, side: 'above' })")
    watched.page.locator("#refit").click()
    until(watched.page, "document.getElementById('message').textContent.includes('No patch')")
    watched.page.locator("#reset-threshold").click()
    watched.frame()
    np.testing.assert_array_equal(watched.canvas(0), before)


# -- bad input ------------------------------------------------------------------------------------------------


def test_a_hundred_megabytes_are_refused_before_they_are_read(served, session):
    connection = http.client.HTTPConnection(served.host, served.port, timeout=10)
    connection.putrequest("POST", f"/{served.token}{session}/photos")
    connection.putheader("Content-Length", str(100 << 20))
    connection.endheaders()  # without sending the body
    answer = connection.getresponse()
    assert answer.status == 413
    assert "larger than 33.6 MB" in json.loads(answer.read())["error"]
    connection.close()


def test_a_hundred_megabytes_in_chunks_are_cut_off(served, session):
    with socket.create_connection((served.host, served.port), timeout=20) as plain:
        head = f"POST /{served.token}{session}/photos HTTP/1.1\r\nHost: {served.host}:{served.port}\r\n"
        head += "Transfer-Encoding: chunked\r\n\r\n"
        plain.sendall(head.encode())
        sent, chunk = 0, b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        try:
            for _ in range(100):
                plain.sendall(chunk)
                sent += 1
        except OSError:
            pass  # the server closed the connection, as it should
        try:
            answer = plain.recv(4096)
        except OSError:
            answer = b""
    assert sent < 60
    assert answer == b"" or b" 413 " in answer


def zip_named_jpg():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil.py", "import os")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("holiday.jpg", zip_named_jpg(), "holiday.jpg: not a readable image"),
        ("empty.jpg", b"", "empty.jpg: is empty"),
        ("text.jpg", b"hello there, this is a text", "text.jpg: not a readable image"),
        ("cut.jpg", jpeg()[:200], "cut.jpg: is damaged"),
        ("..%2F..%2Fetc%2Fpasswd", b"root", "passwd: not a readable image"),
        ("a%00b%0A.png", b"x", "ab.png: not a readable image"),
    ],
)
def test_files_that_are_not_photos_are_refused_by_name(served, session, name, content, told):
    status, answer, _ = ask(served, "POST", f"{session}/photos", content, {"X-Photo-Name": name})
    assert status == 200
    assert answer["refused"].startswith(told)


@pytest.mark.parametrize(
    "name",
    [
        "../../../tmp/x.jpg",
        "C:\\x\\y.jpg",
        "/etc/cron.d/x.jpg",
        "....//x.jpg",
        "%2e%2e%2fx.jpg",
        "-rf.jpg",
        "",
    ],
)
def test_no_name_reaches_the_disk(served, session, name):
    before = sorted(served.folder.rglob("*"))
    status, answer, _ = ask(served, "POST", f"{session}/photos", jpeg(), {"X-Photo-Name": name})
    assert status == 200
    assert not set("/\\") & set(answer["photo"])
    assert not answer["photo"].startswith((".", "-"))
    assert sorted(served.folder.rglob("*")) == before


@pytest.mark.parametrize("token", ["x", "A" * 24, "..", "%2e%2e", "é"])
def test_a_wrong_token_is_refused(served, token):
    from urllib.parse import quote

    for path in ("/", "/api/models", "/api/limits"):
        status, answer, _ = ask(served, "GET", path, token=quote(token, safe="%"))
        assert status == 404
        assert served.token not in json.dumps(answer)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", "127.0.0.1.evil.example:{port}", ""],
)
def test_a_wrong_host_is_refused(served, host):
    status, answer, _ = ask(served, "GET", "/", headers={"Host": host.format(port=served.port)})
    assert (status, answer["error"][:17]) == (421, "wrong Host header")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_page_is_refused(served, headers):
    assert ask(served, "POST", "/api/sessions", headers=headers)[0] == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("", 422),
        ("[]", 422),
        ('{"threshold": 2}', 422),
        ('{"threshold": "NaN"}', 422),
        ('{"threshold": NaN}', 422),
        ('{"components": [1, 2]}', 422),
        ('{"components": [0, 1, 2]}', 422),
        ('{"components": [1, 2, 9]}', 422),
        ('{"model": "../../x"}', 422),
        ('{"model": "dinov2_vitg14"}', 422),
        ('{"out": "/tmp"}', 422),
        ('{"foreground": null, "scaling": ""}', 422),
        ("[" * 50_000, 400),
        ("x" * 100_000, 413),
    ],
    ids=lambda value: str(value)[:20],
)
def test_malformed_json_is_refused_with_a_message(served, session, body, status):
    got, answer, _ = ask(served, "POST", f"{session}/fit", body, {"Content-Type": "application/json"})
    assert got == status, answer
    assert answer["error"]
    assert "Traceback" not in answer["error"]


@pytest.mark.parametrize(
    "path", ["/api/sessions/unknown/message", "/api/nothing", "/../../etc/passwd", "/docs", "/openapi.json"]
)
def test_missing_paths(served, path):
    status, answer, _ = ask(served, "GET", path)
    assert status == 404
    assert answer["error"]


@pytest.mark.parametrize("index", ["-1", "99", "x"])
def test_a_missing_photo(served, session, index):
    assert ask(served, "GET", f"{session}/photos/{index}")[0] in (404, 422)


def test_a_hundred_requests_at_once_are_answered_or_refused(served, session):
    def one(i):
        if i % 2:
            answer = ask(served, "POST", f"{session}/photos", zip_named_jpg(), {"X-Photo-Name": f"{i}.jpg"})
            return "refused" if "refused" in answer[1] else answer[0]
        return ask(served, "GET", f"{session}/message")[0]

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(one, range(100)))
    assert set(answers) <= {200, "refused", 503}
    assert {200, "refused"} <= set(answers)


def test_fits_of_one_tab_wait_for_each_other_and_can_be_stopped(served, session):
    for i in range(6):
        assert (
            ask(served, "POST", f"{session}/photos", jpeg(i, (300, 400)), {"X-Photo-Name": f"{i}.jpg"})[0]
            == 200
        )
    status, _, _ = ask(served, "POST", f"{session}/fit", **as_json({}))
    assert status == 202
    status, answer, _ = ask(served, "POST", f"{session}/fit", **as_json({}))
    assert status == 429
    assert answer["error"].startswith("a fit is already running in this tab")
    assert ask(served, "DELETE", f"{session}/job")[0] == 200
    assert wait(served, session)["state"] == "stopped"
    status, content, _ = ask(served, "GET", f"{session}/message")
    assert len(Message.from_bytes(content).header["photos"]) == 3  # unchanged
    assert ask(served, "POST", f"{session}/fit", **as_json({"threshold": 0.45}))[0] == 202
    assert wait(served, session)["state"] == "done"


def test_every_answer_has_the_security_headers(served):
    for path in ("/", "/api/models", "/api/nothing"):
        headers = ask(served, "GET", path)[2]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_frees_the_port(serve, photo_files, tmp_path, how):
    running = serve(tmp_path, photo_files[0], "--model", MODEL, "--size", 64)
    assert ask(running, "GET", "/api/models")[0] == 200
    code, error, seconds = running.end(how)
    assert code in ((0,) if how == signal.SIGINT else (0, -signal.SIGTERM))
    assert error == ""
    assert seconds < 10
    with socket.socket() as probe:
        probe.bind((running.host, running.port))


@pytest.mark.parametrize(
    ("listening", "name", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "localhost:8000", True),
        ("127.0.0.1", "LOCALHOST:8000", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", "10.0.0.7:8000", False),
        ("127.0.0.1", "rebind.example:8000", False),
        ("10.0.0.7", "10.0.0.7:8000", True),
        ("0.0.0.0", "10.0.0.7:8000", True),
        ("0.0.0.0", "rebind.example:8000", False),
        ("0.0.0.0", "10.0.0.7:8001", False),
    ],
)
def test_which_hosts_are_this_server(listening, name, allowed):
    guard = Guard(None, token="t", host=listening, port=8000, max_upload=1)
    assert guard.host_allowed(name) is allowed


def test_saved_results_have_the_colour_space_of_the_page(view):
    from patchprism.explorer.fit_requests import reshown

    shown = {"mask_threshold": 0.5, "mask_side": "none", "opening": 0, "closing": 0}
    shown |= {"scaling": "sigmoid", "components": [2, 1, 3], "space": "oklab"}
    part = reshown(view, shown).parts[0]
    fitted = Prism(scaling="sigmoid", components=(2, 1, 3), space="oklab", mask_side="none").fit(
        view.features
    )
    np.testing.assert_array_equal(part.rgb, fitted.split(view.features[0]).rgb)
