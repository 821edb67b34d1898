"""Help on a terminal with 80 columns: examples and common options first, all options on request."""

from __future__ import annotations

import re
import shlex

import pytest

from patchprism.cli.help import PAGES, arguments, examples, names_of, options

COMMANDS = sorted(PAGES)


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def commands():
    import typer.main

    from patchprism.cli.app import app

    return typer.main.get_command(app).commands


def test_each_command_has_a_page(commands):
    assert sorted(commands) == COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_first_screen_is_short_and_shows_examples_first(run, command):
    result = run(*filter(None, [command]), "--help")
    lines = result.out.splitlines()
    assert (result.code, result.err) == (0, "")
    assert len(lines) < 40
    assert max(map(len, lines)) < 80
    assert lines[0].startswith(f"Usage: patchprism {command}".rstrip())
    headings = [line for line in lines if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert headings[0] == "Examples:"
    assert not re.search(r"<\w|\[/?bold", result.out)
    assert result.out == run(*filter(None, [command]), "-h").out


@pytest.mark.parametrize("command", COMMANDS)
def test_all_options_are_shown_on_request(run, commands, command):
    result = run(command, "--help-all")
    lines = result.out.splitlines()
    assert (result.code, result.err) == (0, "")
    for option in options(commands[command]):
        assert any(f"{line}  ".startswith(f"  {names_of(option)}  ") for line in lines), option.name
    assert not re.search(r"<\w|\[/?bold", result.out)
    # A long example or list of choices has a separate line; all texts are wrapped.
    assert max(map(len, lines)) < 80


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_are_valid_commands(commands, command):
    assert 1 <= len(examples(commands[command])) <= 3
    for line in examples(commands[command]):
        words = shlex.split(line)
        assert words[:2] == ["patchprism", command]
        given = commands[command].make_context(command, words[2:]).params
        assert all(given[argument.name] for argument in arguments(commands[command]))


def test_defaults_are_part_of_the_help(run):
    words = " ".join(run("render", "--help-all").out.split())
    assert "s3://bucket/out. Default: out." in words
    assert "Default: -1, or 8 for focus_vits14." in words
    assert words.count("Shorter edge of the photo as model input, in pixels. Default: 448.") == 1
    assert "Default: False" not in words
    assert "Default: None" not in words
