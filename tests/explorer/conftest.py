"""A few small photos, a view of them, and a browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchprism

CHROMIUM = (
    os.environ.get("PATCHPRISM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MODEL = "efficientnet_lite2"
SIZE = 160


@pytest.fixture(scope="session")
def photo_files(tmp_path_factory):
    """Three CC0 photos of different shapes, small."""
    data = pytest.importorskip("skimage.data", reason="the photos are from scikit-image")
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for name, photo in (
        ("cat", data.chelsea()),
        ("astronaut", data.astronaut()),
        ("a cup", data.coffee()[:, 100:460]),
    ):
        path = folder / f"{name}.png"
        image = Image.fromarray(photo)
        image.thumbnail((330, 330))
        image.save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def view(photo_files):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded model is an extra")
    return patchprism.visualize(photo_files, model=MODEL, size=SIZE)


@pytest.fixture(scope="session")
def explored(view):
    return view.explore()


@pytest.fixture(scope="session")
def page_file(explored, tmp_path_factory):
    return explored.save(tmp_path_factory.mktemp("page") / "explorer.html")


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright controls the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium found; PATCHPRISM_CHROMIUM can give its path")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield started
        started.close()


class Watched:
    """A page, with its console messages and requests."""

    def __init__(self, page, address):
        self.page = page
        self.problems = []
        self.requests = []
        page.set_default_timeout(10_000)
        page.on("console", self.note)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        self.open(address)

    def note(self, message):
        # Ignored, because only the tests read canvases, not the page.
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:
            self.problems.append(message.text)

    def open(self, address):
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]", timeout=20_000)
        assert self.page.evaluate("document.documentElement.dataset.ready") == "true"
        self.unfold()

    def unfold(self):
        """Open all sections of the panel, because some are collapsed in a small window."""
        self.page.evaluate(
            "document.querySelectorAll('details.section').forEach((section) => { section.open = true; })"
        )

    def frame(self):
        """Wait until changes are drawn."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def left_the_page(self, home):
        return [url for url in self.requests if not url.startswith((home, "blob:", "data:"))]

    def canvas(self, index, layer="colors"):
        """Pixels of one of a photo's canvases, (h, w, 4)."""
        found = self.page.evaluate(
            """([index, layer]) => {
              const canvas = document.querySelectorAll(`canvas.${layer}`)[index];
              const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              return { width, height, data: Array.from(data) };
            }""",
            [index, layer],
        )
        return np.array(found["data"], np.uint8).reshape(found["height"], found["width"], 4)

    def choose(self, name, value):
        """Press a radio button."""
        self.page.locator(f"input[name={name}][value={value}]").click()

    def patch_place(self, index, row, column):
        """Position of a patch on the screen."""
        box = self.page.locator(".marks").nth(index).bounding_box()
        h, w = self.page.evaluate(f"patchprism.model.photos[{index}].grid")
        return box["x"] + (column + 0.5) / w * box["width"], box["y"] + (row + 0.5) / h * box["height"]


@pytest.fixture
def watch(browser):
    """Opens pages in separate contexts; none may print errors or make other requests."""
    contexts, opened = [], []

    def open_page(address, **options):
        context = browser.new_context(
            viewport={"width": 1300, "height": 900}, accept_downloads=True, **options
        )
        contexts.append(context)
        watched = Watched(context.new_page(), str(address))
        opened.append(watched)
        return watched

    yield open_page
    for context in contexts:
        context.close()
    for watched in opened:
        assert watched.problems == []


class Served:
    """A running ``patchprism explore``."""

    def __init__(self, folder, *arguments):
        command = [sys.executable, "-m", "patchprism", "explore", *map(str, arguments), "--no-open"]
        self.folder = folder
        # The server must import the tested package, whatever its working directory is.
        environment = {**os.environ, "PYTHONPATH": str(Path(patchprism.__file__).parents[1])}
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://([\d.]+):(\d+)/([\w-]+)/", line)
        assert found, line + self.process.stderr.read()
        self.address, self.host, self.port, self.token = found[0], found[1], int(found[2]), found[3]

    def end(self, how=signal.SIGINT):
        """Send a signal; returns the exit code and standard error."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        start = time.monotonic()
        error = self.process.communicate(timeout=20)[1]
        return self.process.returncode, error, time.monotonic() - start


@pytest.fixture(scope="session")
def serve():
    """Starts ``patchprism explore`` in a separate process."""
    pytest.importorskip("fastapi", reason="serving is an extra")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded model is an extra")
    return Served


@pytest.fixture(scope="session")
def served(serve, photo_files, tmp_path_factory):
    running = serve(tmp_path_factory.mktemp("served"), *photo_files, "--model", MODEL, "--size", SIZE)
    yield running
    running.end(signal.SIGTERM)


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """A function that runs a script in Node.js, which can import the page's modules."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on this machine")
    folder = tmp_path_factory.mktemp("modules")
    source = Path(patchprism.__file__).parent / "explorer" / "page"
    for path in source.glob("*.js"):
        (folder / f"{path.stem}.mjs").write_text(
            re.sub(r'"\./(\w+)\.js"', r'"./\1.mjs"', path.read_text("utf-8")), "utf-8"
        )

    def run(script, *arguments):
        (folder / "script.mjs").write_text(script, "utf-8")
        done = subprocess.run(
            [node, "script.mjs", *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
