"""Options are declared once: commands and public functions get them from the same fields."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from typer.main import get_command

import patchprism
from patchprism.cli.app import app
from patchprism.cli.takes import only, takes, without
from patchprism.errors import OptionError
from patchprism.features.options import TokenOptions
from patchprism.jobs.settings import Settings
from patchprism.jobs.video.options import VideoOptions
from patchprism.lenses.options import ClipLensOptions, LensOptions
from patchprism.pictures.options import PictureOptions
from patchprism.prism.options import MASK_OPTIONS, PrismOptions
from patchprism.support import checks
from patchprism.support.options import Checked, left_open, number_or_word, numbers, option, option_of, same

COMMANDS = get_command(app).commands


def defaults_of(options):
    return {each.name: each.default for each in fields(options)}


# Public functions, their options, and the options that they lack.
FUNCTIONS = [
    pytest.param(patchprism.visualize, [Settings], set(), id="visualize"),
    pytest.param(patchprism.Prism, [PrismOptions], set(), id="Prism"),
    pytest.param(patchprism.Visualization.save, [PictureOptions], {"pca"}, id="save"),
    pytest.param(
        patchprism.render_video,
        [Settings, VideoOptions, ClipLensOptions],
        set(MASK_OPTIONS),
        id="render_video",
    ),
    pytest.param(
        patchprism.compare, [Settings], {"model", "layer", "components", *MASK_OPTIONS}, id="compare"
    ),
    # The default layer is in the record of the backbone.
    pytest.param(patchprism.extract, [TokenOptions], {"layer"}, id="extract"),
]


@pytest.mark.parametrize(("function", "declared", "left_out"), FUNCTIONS)
def test_keywords_and_defaults_are_those_of_the_fields(function, declared, left_out):
    given = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    expected = {name: value for each in declared for name, value in defaults_of(each).items()}
    expected = {name: value for name, value in expected.items() if name not in left_out}
    assert {name: given.get(name, "missing") for name in expected} == expected


@pytest.mark.parametrize(
    "options", [Settings, PictureOptions, LensOptions, VideoOptions, PrismOptions, TokenOptions]
)
def test_defaults_pass_their_own_checks(options):
    made = options()
    for each in fields(options):
        said = option_of(each)
        if said:
            assert said.check(each.name, each.default) == getattr(made, each.name) == each.default


def test_options_with_a_computed_default_name_it_in_their_help():
    helps = {each.name: option_of(each).help for each in fields(Settings)}
    assert helps["threshold"].endswith(" Default: auto.")
    assert helps["components"].endswith(" Default: 1,2,3.")
    assert helps["layer"].endswith(" Default: -1, or 8 for focus_vits14.")
    assert "Default" not in helps["opening"]  # Typer adds it
    assert not any("Default: None" in text for text in helps.values())
    assert helps["stride"].endswith(" Default: the patch size.")
    assert Settings().threshold is None
    with pytest.raises(OptionError, match="threshold must be 'auto', 'otsu' or a number from 0 to 1, got 2"):
        Settings(threshold=2)


@dataclass(frozen=True, kw_only=True)
class Speed(Checked):
    batch_size: int = option(8, check=checks.integer, help="Maximum batch size.")
    token_norm: str | None = same(TokenOptions, "token_norm")
    final_norm: bool | None = left_open(TokenOptions, "final_norm")
    at: tuple[str, ...] = option((), check=checks.texts)
    range: tuple[float, float] | None = same(Settings, "range")


def test_a_command_gets_complete_dataclasses():
    got = []

    @takes(speed=without(Speed, "at"), rest=only(Speed, "at"))
    def command(photo: str, speed: Speed, rest: Speed, loud: bool = False) -> None:
        got.append((photo, speed, rest, loud))

    assert list(inspect.signature(command).parameters) == [
        *("photo", "loud", "batch_size", "token_norm", "final_norm", "range", "at"),
    ]
    command("a", batch_size=3, token_norm="none", range="0,5", at=["1", "2"])
    assert got[-1] == ("a", Speed(batch_size=3, range=(0, 5)), Speed(at=("1", "2")), False)
    command("a", loud=True, token_norm="l2", final_norm=False)
    assert got[-1] == ("a", Speed(token_norm="l2", final_norm=False), Speed(), True)
    with pytest.raises(OptionError, match="range must be two numbers like 0,4095, got '1,2,3'"):
        command("a", range="1,2,3")


@pytest.mark.parametrize("command", ["render", "explore", "fit", "features", "compare", "video"])
def test_the_two_norms_have_different_names(command):
    spelled = {flag: each for each in COMMANDS[command].params for flag in (*each.opts, *each.secondary_opts)}
    for flag in ("--final-norm", "--no-final-norm", "--token-norm"):
        assert not spelled[flag].hidden


@pytest.mark.parametrize("text", ["", "x", "1,", "1,2", "1,2,3,4", "1;2;3", "1,2,x"])
def test_a_list_of_numbers_is_read_or_refused(text):
    with pytest.raises(OptionError, match=re.escape(f"mean must be three numbers, got {text!r}")):
        numbers("three numbers", count=3)("mean", text)


def test_lists_of_numbers():
    assert numbers("x", int)("layer", "2,5,-1") == (2, 5, -1)
    assert numbers("x", count=3, repeat=True)("mean", "0.5") == (0.5, 0.5, 0.5)
    assert number_or_word(int)("clusters", "12") == 12
    assert number_or_word(float)("threshold", "otsu") == "otsu"


def test_no_command_has_more_than_eight_parameters():
    for name in COMMANDS:
        module = importlib.import_module(f"patchprism.cli.{'models' if name == 'download' else name}")
        text = Path(module.__file__).read_text(encoding="utf-8")
        assert "locals()" not in text
        signature = re.search(rf"^def {name}\((.*?)\) -> None:\n", text, re.DOTALL | re.MULTILINE)[1]
        assert len(re.findall(r"^    \w+: ", signature, re.MULTILINE)) <= 8, name
