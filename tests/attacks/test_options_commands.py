"""Every option of every command against values that nobody should give: exit codes 0 to 3, one line, no defect.

The commands are read by introspection, so an option that is added is tried, too. A network of no weights runs for
real, so that a value which is not refused is used by all that comes after.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import sys
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from toys import RECORD, Toy
from typer.main import get_command

from patchprism.backbones import WeightsOrigin, base
from patchprism.cli import main
from patchprism.cli.app import app

COMMANDS = get_command(app).commands
OPTIONS = [
    pytest.param(name, parameter, id=f"{name}-{parameter.name}")
    for name, command in COMMANDS.items()
    for parameter in command.params
]
OPTIONS_BY_NUMBER = [(command, each.name) for command in COMMANDS for each in COMMANDS[command].params]
SHARES = 20
# What makes each command run, before the option that is tried.
RUNS = {
    "render": ["a.png", "-o", "out", "-m", "toy", "--size", "32"],
    "explore": ["a.png", "--html", "page.html", "-m", "toy", "--size", "32"],
    "fit": ["a.png", "-o", "a.prism", "-m", "toy", "--size", "32"],
    "features": ["a.png", "-o", "a.zarr", "-m", "toy", "--size", "32"],
    "compare": ["a.png", "-o", "out", "-m", "toy", "-m", "toy", "--size", "32"],
    "video": ["frames", "-o", "out", "-m", "toy", "--size", "32"],
    "models": [],
    "download": [],
}
LONG = "9" * 5000
WORDS = [
    "0", "-1", "1", "2", "0.5", "nan", "inf", "-inf", "1e308", "1e999", "-0", "1_0", "0x10", LONG, "4294967296",
    "1000000000", "\u0663", "\u00b2", "--5", "1,2,3", "1,1,1", "1,2,-9223372036854775809", ",", "none", "auto",
    "foo://x", "s3://", "http://[", "file://%zz", "memory://a/b", "::", "a.png", "a.txt", "folder", "/dev/null",
    "x" * 300, "[red]", "[/]", ":dog:", "$HOME$", "%d%s%", "{}{0}", "a b\nc", "\x1b[2J", "\udcff", "\u65e5\u672c",
    "<script>", "..", "-", "hf:", "hf:[/]", "timm:", "cuda:99", "cuda:-1", "meta", "cpu:1", "mps:7", "int8", "1:1,1",
    "a:nan,1e400", "1:2:3:4", "1/0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    """A folder with a photo in it, and the toy as a model of that name; nobody asks the network."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:24, :32]
    disc = ((y - 12) ** 2 + (x - 16) ** 2 < 60)[..., None]
    photo = np.where(disc, [230, 120, 20], [40, 90, 160]) + (7 * x % 40 + 5 * y % 30)[..., None]
    for folder in ("frames", "folder"):
        (tmp_path / folder).mkdir()
    for path in ("a.png", "frames/0.png", "frames/1.png"):
        Image.fromarray(photo.astype(np.uint8)).save(path)
    (tmp_path / "a.txt").write_text("no photo")
    monkeypatch.setitem(base._RECORDS, "toy", RECORD)
    import patchprism.backbones
    import patchprism.explorer.serve
    import patchprism.jobs.video.job
    import patchprism.jobs.work
    import patchprism.views.visualize

    load, obtain = patchprism.backbones.load_backbone, patchprism.jobs.work.obtain_weights

    def load_toy(name, **options):
        if name != "toy":
            return load(name, **options | {"download": False})
        base.resolve_device(options.get("device", "auto"))
        base.resolve_dtype(options.get("dtype", "auto"))
        return Toy()

    def obtain_toys(record, weights=None, **options):
        if record.name != "toy":
            return obtain(record, weights, **options | {"download": False})
        return WeightsOrigin(source="tests", sha256="0" * 64)

    for module in (
        patchprism.backbones,
        patchprism.views.visualize,
        patchprism.jobs.work,
        patchprism.jobs.video.job,
    ):
        monkeypatch.setattr(module, "load_backbone", load_toy)
    monkeypatch.setattr(patchprism.jobs.work, "obtain_weights", obtain_toys)
    monkeypatch.setattr(patchprism.explorer.serve, "serve", lambda *_, **__: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def nobody(host, *_, **__):
        if host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", None):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr("patchprism.backbones.download.time.sleep", lambda _: None, raising=False)


def call(*arguments):
    """Exit code, and what was printed on both streams."""
    out, err = io.TextIOWrapper(io.BytesIO(), errors="surrogateescape"), io.StringIO()
    argv, sys.argv = sys.argv, ["patchprism", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = argv
    return code, err.getvalue()


def check(*arguments):
    code, err = call(*arguments)
    assert code in (0, 1, 2, 3), (arguments, code, err)
    assert "Traceback" not in err, (arguments, err)
    assert "\x1b" not in err, (arguments, err)
    if code == 1:
        assert re.fullmatch(r"error: [^\n]{1,3000}\n", err), (arguments, err)


def arguments_for(command, parameter, value):
    run = RUNS.get(command, [])
    if parameter.param_type_name == "argument":
        return [command, *run[1:], "--", value]
    flag = max(parameter.opts, key=len)
    if getattr(parameter, "is_flag", False):
        return [command, *run, flag]
    return [command, *run, f"{flag}={value}" if flag.startswith("--") else flag]


@pytest.mark.parametrize(("command", "parameter"), OPTIONS)
def test_an_option_takes_its_value_or_refuses_it_in_one_line(command, parameter):
    if parameter.name == "engine":  # a cluster takes seconds to start, and is tried elsewhere
        check(*arguments_for(command, parameter, "x"))
        return
    # Commands share most options: each tries its own share of the values.
    share = WORDS[OPTIONS_BY_NUMBER.index((command, parameter.name)) % SHARES :: SHARES]
    for value in share[:1] if getattr(parameter, "is_flag", False) else share:
        check(*arguments_for(command, parameter, value))


def test_the_runs_are_all_there_and_run():
    assert set(RUNS) == set(COMMANDS)
    for command, arguments in RUNS.items():
        if arguments:
            code, err = call(command, *arguments)
            assert code == 0, (command, err)


@settings(derandomize=True, deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_options_together(data):
    """Several options at once, of texts that Hypothesis makes."""
    command = data.draw(st.sampled_from(["render", "fit", "compare", "explore", "video"]))
    letters = st.characters(codec="utf-8", exclude_characters="\0")
    values = st.one_of(st.sampled_from(WORDS), st.text(letters, max_size=8), st.integers().map(str))
    values = st.one_of(values, st.floats().map(str))
    given_arguments = [command, *RUNS[command]]
    for parameter in data.draw(st.lists(st.sampled_from(COMMANDS[command].params), min_size=1, max_size=3)):
        if parameter.param_type_name == "option" and parameter.name not in ("engine", "out", "workers"):
            value = data.draw(values)
            given_arguments += arguments_for(command, parameter, value)[len(RUNS[command]) + 1 :]
    check(*given_arguments)


@pytest.mark.parametrize(
    "arguments", [["-o", ""], ["--out="], ["-o", "out", "--model", ""], ["", "-o", "out"]]
)
def test_an_empty_argument_is_no_folder(arguments, tmp_path):
    before = sorted(os.listdir(tmp_path))
    code, err = call("render", "a.png", "-m", "toy", *arguments)
    assert code == 2
    assert "is empty: a shell variable may not be set" in err
    assert sorted(os.listdir(tmp_path)) == before


def test_the_command_line_names_flags():
    _, err = call("render", "a.png", "-o", "out", "-m", "toy", "--overlay", "2", "--mask-threshold", "nan")
    assert err == "error: --overlay must be a number from 0 to 1, got 2.0\n"
    _, err = call("render", "a.png", "-o", "out", "-m", "toy", "--mask-threshold", "nan")
    assert err == "error: --mask-threshold must be a number from 0 to 1, got nan\n"
    _, err = call("render", "a.png", "-o", "out", "-m", "toy", "--norm", "l3")
    assert err == "error: --norm must be one of none, l2, got 'l3'\n"
