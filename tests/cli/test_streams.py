"""Jobs do not fail if standard streams are closed or full or cannot encode a character."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image

PROGRAM = f"'{sys.executable}' -m patchprism"
FULL = "/dev/full"


def shell(command, **environment):
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, env=os.environ | environment, timeout=120
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream(tmp_path, closed):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    result = shell(
        f"cd '{tmp_path}' && {PROGRAM} render a.png -o out --foreground none "
        f"--model efficientnet_lite2 --size 32 {closed}"
    )
    assert (result.returncode, result.stderr) == (0, b"")
    with Image.open(tmp_path / "out/results.png") as picture:  # the output did not go into this file
        picture.load()


@pytest.mark.skipif(not os.path.exists(FULL), reason="needs /dev/full")
def test_a_full_stream():
    result = shell(f"{PROGRAM} models > {FULL}")
    assert result.returncode == 1
    assert result.stderr == b"error: cannot print the results: no space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_stream_that_cannot_encode_a_name(tmp_path):
    (tmp_path / "p").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "p" / "\u00e9\u2192.png")
    options = "--foreground none --model efficientnet_lite2 --size 32"
    command = f"cd '{tmp_path}/p' && {PROGRAM} render . -o ../out {options}"
    result = shell(command, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"\n??.png  64 ? 48" in result.stdout


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names must be valid text there")
def test_paths_are_printed_with_their_exact_bytes(tmp_path):
    (tmp_path / "p").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "a.png").rename(tmp_path / "p" / os.fsdecode(b"a\xff.png"))
    command = (
        f"cd '{tmp_path}/p' && {PROGRAM} render . -o ../out -q --foreground none --model efficientnet_lite2"
    )
    result = shell(command, PYTHONIOENCODING="utf-8")
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"out/a\xff.pca.png\n" in result.stdout


INTERRUPTED_IMPORT = """
import sys
from patchprism import cli

class Finder:
    def find_spec(self, name, *_):
        if name == "patchprism.cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
cli.entry()
"""


def test_ctrl_c_during_startup():
    result = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, timeout=60)
    assert (result.returncode, result.stderr.split()) == (130, [b"stopped"])


EARLIER_HANDLER = """
import atexit, sys
from patchprism import cli

atexit.register(print, "handler")
sys.argv = ["patchprism", "--version"]
cli.entry()
"""


def test_exit_handlers_from_before_the_start_still_run():
    result = subprocess.run([sys.executable, "-c", EARLIER_HANDLER], capture_output=True, timeout=60)
    assert (result.returncode, result.stdout.split()[-1]) == (0, b"handler")


def test_names_cannot_move_the_cursor(run, tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a\x1b[2J.png")
    (tmp_path / "b\x1b[2J.png").write_text("no photo")
    result = run(
        "render", tmp_path, "-o", tmp_path / "out", "--foreground", "none", "--model", "efficientnet_lite2"
    )
    assert result.code == 3
    assert "a?[2J.png  64" in result.out
    assert "b?[2J.png: not a readable image" in result.err
    assert "\x1b" not in result.out + result.err
