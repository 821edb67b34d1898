"""Every option of every command with unusual values: exit codes 0 to 3, messages of one line, and no crash.

The commands are found by introspection, so that new options are tested too. A network without weights really
runs, so that accepted values are used by all later steps.
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

from patchprism.backbones import WeightsOrigin, catalog, devices
from patchprism.cli import main
from patchprism.cli.app import app
from patchprism.cli.flags import flags, named_by_flags
from patchprism.errors import ModelError, OptionError, PhotoError
from patchprism.views.visualize import visualize

COMMANDS = get_command(app).commands
OPTIONS = [
    pytest.param(name, parameter, id=f"{name}-{parameter.name}")
    for name, command in COMMANDS.items()
    for parameter in command.params
]
OPTIONS_BY_NUMBER = [(command, each.name) for command in COMMANDS for each in COMMANDS[command].params]
SHARES = 20
# Arguments with which each command runs, before the tested option.
RUNS = {
    "render": ["a.png", "-o", "out", "-m", "toy", "--size", "32"],
    "explore": ["a.png", "--html", "page.html", "-m", "toy", "--size", "32"],
    "fit": ["a.png", "-o", "a.prism", "-m", "toy", "--size", "32"],
    "features": ["a.png", "-o", "a.zarr", "-m", "toy", "--size", "32"],
    "compare": ["a.png", "-o", "out", "-m", "toy", "-m", "toy", "--size", "32"],
    "video": ["frames", "-o", "out", "-m", "toy", "--size", "32"],
    "evaluate": ["a.png", "--masks", "truth", "-m", "toy", "--size", "32"],
    "teach": ["a.png", "--masks", "truth", "-o", "a.head.safetensors", "-m", "toy", "--size", "32"],
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
    """A folder with a photo, and the toy as a registered model; there is no network connection."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:24, :32]
    disc = ((y - 12) ** 2 + (x - 16) ** 2 < 60)[..., None]
    photo = np.where(disc, [230, 120, 20], [40, 90, 160]) + (7 * x % 40 + 5 * y % 30)[..., None]
    for folder in ("frames", "folder"):
        (tmp_path / folder).mkdir()
    for path in ("a.png", "frames/0.png", "frames/1.png"):
        Image.fromarray(photo.astype(np.uint8)).save(path)
    (tmp_path / "a.txt").write_text("no photo")
    (tmp_path / "truth").mkdir()
    Image.fromarray((disc[..., 0] * 255).astype(np.uint8)).save("truth/a.png")
    monkeypatch.setitem(catalog.RECORDS, "toy", RECORD)
    import patchprism.backbones
    import patchprism.explorer.serve
    import patchprism.jobs.network

    load, obtain = patchprism.backbones.load_backbone, patchprism.jobs.network.obtain_weights

    def load_toy(name, **options):
        if name != "toy":
            return load(name, **options | {"download": False})
        devices.resolve_device(options.get("device", "auto"))
        devices.resolve_dtype(options.get("dtype", "auto"))
        return Toy()

    def obtain_toys(record, weights=None, **options):
        if record.name != "toy":
            return obtain(record, weights, **options | {"download": False})
        return WeightsOrigin(source="tests", sha256="0" * 64)

    for module in (patchprism.backbones, patchprism.jobs.network):
        monkeypatch.setattr(module, "load_backbone", load_toy)
    monkeypatch.setattr(patchprism.jobs.network, "obtain_weights", obtain_toys)
    monkeypatch.setattr(patchprism.explorer.serve, "serve", lambda *_, **__: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def nobody(host, *_, **__):
        if host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", None):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr("patchprism.backbones.download.time.sleep", lambda _: None, raising=False)


def call(*arguments):
    """Exit code and output of both streams."""
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
        assert not names_of_the_library(err), (arguments, err)


def names_of_the_library(err):
    """Parameters that a message names as the library does, although users of a terminal know only flags."""
    said = re.sub(r"""(?<!\w)'[^']*'(?!\w)|"[^"]*\"""", "", err.removeprefix("error: "))
    words = re.findall(r"(?<![-\w/.])[a-z_]+(?![\w/.])", said)
    named = {word for word in words if "_" in word and word in flags()}
    # A name without an underscore is an ordinary word, unless the message says what it must be or gives it a value.
    named |= {word for word in flags() if re.match(rf"{word}( must | is |:)", said)}
    return named | {word for word in flags() if re.search(rf"(?<![-\w/.]){word}=", said)}


def arguments_for(command, parameter, value):
    run = RUNS.get(command, [])
    if parameter.param_type_name == "argument":
        return [command, *run[1:], "--", value]
    flag = max(parameter.opts, key=len)
    if getattr(parameter, "is_flag", False):
        return [command, *run, flag]
    return [command, *run, f"{flag}={value}" if flag.startswith("--") else flag]


@pytest.mark.parametrize(("command", "parameter"), OPTIONS)
def test_an_option_accepts_its_value_or_refuses_it_in_one_line(command, parameter):
    if parameter.name == "engine":  # a cluster takes seconds to start, and has other tests
        check(*arguments_for(command, parameter, "x"))
        return
    # Commands share most options, so each command tests a share of the values.
    share = WORDS[OPTIONS_BY_NUMBER.index((command, parameter.name)) % SHARES :: SHARES]
    for value in share[:1] if getattr(parameter, "is_flag", False) else share:
        check(*arguments_for(command, parameter, value))


def test_every_command_has_arguments_that_work():
    assert set(RUNS) == set(COMMANDS)
    for command, arguments in RUNS.items():
        if arguments:
            code, err = call(command, *arguments)
            assert code == 0, (command, err)


@settings(derandomize=True, deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_options_together(data):
    """Several options at once, with texts from Hypothesis."""
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
def test_an_empty_argument_is_not_a_folder(arguments, tmp_path):
    before = sorted(os.listdir(tmp_path))
    code, err = call("render", "a.png", "-m", "toy", *arguments)
    assert code == 2
    assert "is empty; perhaps a shell variable is not set" in err
    assert sorted(os.listdir(tmp_path)) == before


def test_the_command_line_names_flags():
    _, err = call("render", "a.png", "-o", "out", "-m", "toy", "--overlay", "2", "--mask-threshold", "nan")
    assert err == "error: --overlay must be a number from 0 to 1, got 2.0\n"
    _, err = call("render", "a.png", "-o", "out", "-m", "toy", "--mask-threshold", "nan")
    assert err == "error: --mask-threshold must be a number from 0 to 1, got nan\n"
    _, err = call("render", "a.png", "-o", "out", "-m", "toy", "--token-norm", "l3")
    assert err == "error: --token-norm must be one of none, l2, got 'l3'\n"


CONFLICTS = [
    ("render", "--foreground none --mask-side above", "--mask-threshold with --foreground none"),
    ("render", "--foreground none --mask-threshold 0.5", "--mask-threshold needs a --mask-side"),
    ("render", "--foreground above --threshold 1", "another threshold, or --foreground none"),
    ("explore", "--foreground above --threshold 1", "another threshold, or --foreground none"),
    ("fit", "--foreground above --threshold 1", "another threshold, or --foreground none"),
    ("video", "--foreground above --threshold 1", "another threshold, or --foreground none"),
    ("render", "--prism a.prism --foreground-component 2", "--foreground-component is fixed by"),
    ("render", "--prism a.prism --foreground pca", "--foreground is fixed by"),
    ("render", "--prism a.prism --sample 1", "--sample is for fitting"),
    ("explore", "--prism a.prism --sample 1", "--sample is for fitting"),
    ("video", "--prism a.prism --space oklab", None),
    ("video", "--prism masked.prism", "this prism was saved with another one"),
    ("render", "--prism a.prism --token-norm l2", "another --token-norm: none, now l2"),
    ("render", "--prism a.prism --no-final-norm", None),
    ("render", "--prism a.prism --size 40", "another framing (size)"),
    ("render", "--lens similarity", "needs a point: --at PHOTO:x,y"),
    ("render", "--at a.png:1,1", "--at is only for the lenses"),
    ("render", "--lens similarity --at b.png:1,1", "--at: no photo is called 'b.png'"),
    ("render", "--lens clusters --sample 1", None),
    ("render", "--lens attention --layer 0,0", "--layer 0,0"),
    ("render", "--fetch-from s3://x", "--fetch-from is only for feature stores"),
    ("render", "--workers 2", "--workers is only for the engine ray"),
    (
        "render",
        "--sample 1 --seed 4294967295",
        "--seed must be a whole number from 0 to 4294967294, got 4294967295",
    ),
    ("render", "--sample 1 --seed=-1", "--seed must be a whole number of at least 0, got -1"),
    ("fit", "--sample 1 --seed 99999999999", "--seed must be a whole number from 0 to 4294967294"),
    ("render", "--batch-size 2147483648", "--batch-size must be a whole number from 1 to 2147483647"),
    ("video", "--fit-frames 2147483648", "--fit-frames must be a whole number from 1 to 2147483647"),
    ("render", "--range 5,2", "--range must be two numbers"),
    ("render", "--mean 1,2", "--mean must be three numbers"),
    ("render", "--preset seed --size 33", "--size must be a multiple of the patch size 8"),
    ("video", "--crf 3", "--crf is only for videos"),
    ("video", "--start 2 --end 1", "--end must lie after start"),
    ("compare", "--layer x", "--layer must be a number or several like 2,5"),
]


@pytest.mark.parametrize(("command", "options", "told"), CONFLICTS)
def test_conflicts_name_flags(command, options, told, tmp_path):
    if ".prism" in options:
        prism = visualize("a.png", backbone=Toy(), size=32).prism
        prism.save("a.prism")
        prism.closing = 1
        prism.save("masked.prism")
    code, err = call(command, *RUNS[command], *options.split())
    assert "Traceback" not in err
    assert not names_of_the_library(err), err
    if told is not None:
        assert (code, told in err) == (1, True), err


def test_only_parameters_become_flags():
    """Values and file names in messages are not changed."""
    for message in (
        "unknown model 'mask_side': `patchprism models` lists those",
        "model must be one of 'mask_side', got 'token_norm'",
        'x "batch_size" y',
        "mask_side/batch_size.png: is empty",
        "./mask_side: no such prism file",
        "https://host/?size=5&overlay_alpha=2 cannot be reached",
    ):
        assert named_by_flags(OptionError(message)).removeprefix("--") == message
    assert named_by_flags(PhotoError("mask_side", "is empty")) == "mask_side: is empty"
    assert named_by_flags(OptionError("token_norm is settled")) == "--token-norm is settled"
    assert named_by_flags(ModelError("take final_norm=False")) == "take --no-final-norm"
    assert named_by_flags(ModelError("the photo's, final_norm=True, not others'")) == (
        "the photo's, --final-norm, not others'"
    )
    assert named_by_flags(ModelError("give mean=R,G,B and std=R,G,B, of colours")) == (
        "give --mean R,G,B and --std R,G,B, of colours"
    )
