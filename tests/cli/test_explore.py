"""``patchprism explore`` from the command line."""

from __future__ import annotations

import socket
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from patchprism.cli.app import app
from patchprism.errors import ExtraError, OptionError

MODEL = ["--model", "efficientnet_lite2", "--size", "64"]


def run(*arguments):
    return CliRunner().invoke(app, ["explore", *map(str, arguments)])


@pytest.fixture
def photo_file(tmp_path, photo):
    Image.fromarray(np.tile(photo, (2, 2, 1))).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def test_help_names_every_option():
    done = run("--help-all")
    assert done.exit_code == 0
    for option in ("--html", "--no-open", "--host", "--port", "--out", "--threshold", "--prism", "--title"):
        assert option in done.output


def test_it_writes_one_file(photo_file, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    out = tmp_path / "page.html"
    done = run(photo_file, "--html", out, "--title", "My <photos>", *MODEL, "--quiet")
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(out)
    text = out.read_text("utf-8")
    assert "<title>My &lt;photos&gt;</title>" in text
    for address in ("http://", "https://"):
        # No address except the SVG namespace.
        assert text.replace("http://www.w3.org/2000/svg", "").replace('"http://"', "").count(address) == 0
    assert list(tmp_path.glob(".*")) == []


def test_a_bad_photo_is_named_and_the_page_is_written(photo_file, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    (tmp_path / "bad.jpg").write_text("no photo")
    done = run(photo_file, tmp_path / "bad.jpg", "--html", tmp_path / "page.html", *MODEL)
    assert done.exit_code == 3
    assert "bad.jpg: not a readable image" in done.stderr
    assert (tmp_path / "page.html").stat().st_size > 50_000


def test_a_port_in_use_is_reported_before_the_network_runs(photo_file):
    pytest.importorskip("fastapi")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(photo_file, "--port", port, "--no-open", *MODEL)
    assert isinstance(done.exception, OptionError)
    assert f"cannot listen on host '127.0.0.1', port {port}: address already in use" in str(done.exception)


def test_without_the_extra_it_says_how_to_get_it(photo_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = run(photo_file, "--no-open", *MODEL)
    assert isinstance(done.exception, ExtraError)
    assert "pip install 'patchprism[explore]'" in str(done.exception)


def test_the_documentation_names_the_command():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "explorer.md").read_text("utf-8")
    for word in (
        "patchprism explore",
        "--html",
        "Visualization.explore()",
        "PPRISMX",
        "token-scales",
        "token-axes",
        "mask_threshold",
    ):
        assert word in text
