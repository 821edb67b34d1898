"""A head that is taught in a served page is fitted to the full tokens, exactly as in Python."""

from __future__ import annotations

import http.client
import json
import struct

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import patchprism
from patchprism.cli.app import app
from patchprism.explorer import Message
from patchprism.pictures.masks import full_mask
from patchprism.prism.colors import PhotoColors
from patchprism.prism.head import GRID

MARKS = [[0, 0], [1, 0], [25, 0], [44, 1], [45, 1], [55, 1], [130, 0]]


class Tab:
    """A session at a running server, without a browser."""

    def __init__(self, served):
        self.served = served
        self.name = json.loads(self.ask("POST", "/sessions")[1])["session"]

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.served.host, self.served.port, timeout=60)
        kind = {"Content-Type": "application/octet-stream" if path.endswith("/apply") else "application/json"}
        connection.request(method, f"/{self.served.token}/api{path}", body, kind)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def post(self, path, body):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", f"/sessions/{self.name}{path}", content)


@pytest.fixture(scope="module")
def tab(served):
    return Tab(served)


def read_answer(content, n_classes):
    (length,) = struct.unpack_from("<I", content)
    head, rest = content[4 : 4 + length], content[4 + length :]
    n = len(rest) // (4 * n_classes + 5)
    decisions = np.frombuffer(rest, "<i4", n * n_classes).reshape(n, n_classes) * GRID
    score = np.frombuffer(rest, "<f4", n, 4 * n * n_classes)
    return head, decisions, score, np.frombuffer(rest, np.uint8, n, 4 * n * (n_classes + 1))


def own_head(view, marks, classes=("background", "object")):
    labels = np.full(sum(h * w for h, w in view.features.grids), -1)
    for patch, number in marks:
        labels[patch] = number
    ends = np.cumsum([h * w for h, w in view.features.grids])
    masks = [
        part.reshape(grid)
        for part, grid in zip(np.split(labels, ends[:-1]), view.features.grids, strict=True)
    ]
    return patchprism.Head(classes=classes).fit(view.features, masks)


def test_the_server_fits_the_same_head_as_python(tab, view):
    status, content = tab.post("/head", {"classes": ["background", "object"], "marks": MARKS, "C": 10})
    assert status == 200
    head, decisions, score, classes = read_answer(content, 2)
    own = own_head(view, MARKS)
    own.origin = view.origin
    assert head == own.to_bytes()
    expected = np.concatenate([each.reshape(-1, 2) for each in own.decision_function(view.features)])
    np.testing.assert_array_equal(decisions, expected)
    predicted = np.concatenate([each.ravel() for each in own.predict(view.features)])
    np.testing.assert_array_equal(classes, predicted)
    np.testing.assert_array_equal(score > 0.5, predicted > 0)
    # The head gives the same results after it is sent back as a file.
    assert tab.post("/head/apply", head) == (200, content)


def test_the_taught_foreground_equals_that_of_python_and_the_command(
    tab, view, photo_files, tmp_path, monkeypatch
):
    head, *_, classes = read_answer(
        tab.post("/head", {"classes": ["background", "object"], "marks": MARKS})[1], 2
    )
    assert tab.post("/fit", {"head": True, "threshold": "auto"})[0] == 202
    while json.loads(tab.ask("GET", f"/sessions/{tab.name}/job")[1])["state"] in ("queued", "running"):
        pass
    message = Message.from_bytes(tab.ask("GET", f"/sessions/{tab.name}/message")[1])
    assert message.header["fit"]["method"] == "mask"
    assert ["--head", "taught.head.safetensors"] in message.header["command"]["options"]
    scores = message.array("scores")
    np.testing.assert_array_equal(scores > message.header["fit"]["threshold"], classes > 0)
    own = patchprism.Prism(foreground="mask").fit(view.features, own_head(view, MARKS))
    masks = np.concatenate([own.split(tokens).foreground.ravel() for tokens in view.features])
    np.testing.assert_array_equal(masks, classes > 0)
    assert message.header["fit"]["n_foreground"] == own.n_foreground_ == int(masks.sum())
    # The page's command with the head that the page saves gives exactly the same masks and scores.
    (tmp_path / "taught.head.safetensors").write_bytes(head)
    monkeypatch.chdir(tmp_path)
    command = message.header["command"]
    words = ["render", *photo_files, *(word for option in command["options"] for word in option)]
    words += ["--threshold", command["threshold"], "--foreground", command["foreground"]]
    words += ["--arrays", "--masks", "png", "--upsample", "nearest", "--out", "out"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    start = 0
    for path, size, grid, crop in zip(photo_files, view.sizes, view.features.grids, view.crops, strict=True):
        n = grid[0] * grid[1]
        own = classes[start : start + n].reshape(grid) > 0
        with np.load(tmp_path / "out" / f"{path.stem}.npz") as arrays:
            np.testing.assert_array_equal(arrays["score"].ravel(), scores[start : start + n])
            np.testing.assert_array_equal(arrays["foreground"], own)
        part = PhotoColors(own.astype(np.float32), own, None, None)
        written = np.asarray(Image.open(tmp_path / "out" / f"{path.stem}.mask.png"))
        np.testing.assert_array_equal(written > 0, full_mask(part, 0.5, crop=crop, size=size))
        start += n
    # A head cannot be used for tokens of another model; for those of the same model, it is kept.
    status, content = tab.post("/fit", {"scaling": "percentile"})
    assert status == 202, content
    while json.loads(tab.ask("GET", f"/sessions/{tab.name}/job")[1])["state"] in ("queued", "running"):
        pass
    message = Message.from_bytes(tab.ask("GET", f"/sessions/{tab.name}/message")[1])
    assert message.header["fit"]["method"] == "mask"
    assert message.header["fit"]["scaling"] == "percentile"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/head", {"classes": ["a", "b"], "marks": [[0, 0], [1, 0]]}, 422, "label no patch as b"),
        ("/head", {"classes": ["a", "b"], "marks": [[0, 0], [10**9, 1]]}, 422, "no patch 1000000000"),
        ("/head", {"classes": ["a", "b"], "marks": [[0, 0], [-1, 1]]}, 422, "no patch -1"),
        ("/head", {"classes": ["a", "b"], "marks": [[0, 0], [1, 2]]}, 422, "no class 2"),
        ("/head", {"classes": ["a", "a"], "marks": [[0, 0], [1, 1]]}, 422, "differ"),
        ("/head", {"classes": ["a"], "marks": [[0, 0], [1, 0]]}, 422, "classes"),
        ("/head", {"classes": ["a", "b"], "marks": []}, 422, "marks"),
        ("/head", {"classes": ["a", "b"], "marks": [[0, 0], [1, 1]], "C": 0}, 422, "C"),
        ("/head", b"{", 400, "not JSON"),
        ("/head/apply", b"", 422, "the head: not a head"),
        ("/head/apply", b"\xff" * 100, 422, "the head: not a head"),
        ("/head/apply", None, 422, "width 7"),
    ],
)
def test_invalid_marks_are_refused_with_a_message(tab, path, body, status, said):
    if body is None:
        other = np.random.default_rng(0).normal(size=(1, 4, 4, 7)).astype(np.float32)
        body = patchprism.Head().fit(other, [np.arange(16).reshape(4, 4) % 2]).to_bytes()
    found, content = tab.post(path, body)
    assert found == status, content
    assert said in json.loads(content)["error"]


def test_a_tab_without_a_head_cannot_use_a_head(served):
    tab = Tab(served)
    assert tab.post("/fit", {"head": True, "threshold": "auto"})[0] == 202
    while (job := json.loads(tab.ask("GET", f"/sessions/{tab.name}/job")[1]))["state"] in (
        "queued",
        "running",
    ):
        pass
    assert job["state"] == "failed"
    assert "mark patches first" in job["error"]
