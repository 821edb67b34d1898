"""Documentation executes: the README's commands and programs run, docs/cli.md is what the commands say."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import skimage

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- runs in the test suite -->\n```(\w+)\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with a folder ``photos`` in it, as the README's reader has one."""
    (tmp_path / "photos").mkdir()
    data = Path(next(iter(skimage.__path__))) / "data"
    for name in ("chelsea.png", "coffee.png"):
        (tmp_path / "photos" / name).write_bytes((data / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_has_blocks_to_run():
    assert [language for language, _ in BLOCKS].count("python") >= 2
    assert "bash" in [language for language, _ in BLOCKS]


@pytest.mark.parametrize(("language", "text"), BLOCKS, ids=[f"block {i + 1}" for i in range(len(BLOCKS))])
def test_the_readmes_blocks_run(language, text, workplace, monkeypatch):
    if language == "python":
        exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
        return
    from patchprism.cli import main

    for line in text.strip().splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    assert (workplace / "out" / "mine" / "results.png").is_file()


def test_every_file_that_the_readme_names_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).is_file(), target


def test_the_page_of_commands_is_what_the_commands_say():
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs" / "generate_cli.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == generate.page(), "docs/cli.md is out of date: run `make docs`"
    assert "## patchprism render" in page


def test_each_command_and_option_has_help():
    import typer.main

    from patchprism.cli.app import app

    for name, command in typer.main.get_command(app).commands.items():
        assert command.help, name
        for parameter in command.params:
            if parameter.name != "help":
                assert parameter.help, (name, parameter.name)


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/**/*.md")), ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_rooms_in_contributing_are_those_of_src():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE)
    there = [path.stem for path in (ROOT / "src" / "patchprism").iterdir() if not path.name.startswith("_")]
    assert sorted(told) == sorted(set(there) - {"py"})  # py.typed
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert told == settings["contracts"][0]["layers"][::-1]
