"""The commands and programs of README and docs run, and docs/cli.md equals the help texts of the commands."""

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


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each block that is marked as a test."""
    return re.findall(r"<!-- runs in the test suite -->\n```(\w+)\n(.*?)```", text, re.DOTALL)


BLOCKS = blocks(README)
# Pages, and files that their blocks must write.
PAGES = {
    "quickstart": ["out/results.png", "out-cat/chelsea.overlay.png", "page.html", "out-python/report.json"],
    "tutorials/figure-1": ["out/histogram.png", "out-paper/results.pdf", "out-more/coffee.pca.png"],
    "tutorials/masks": ["out-clicks/rocket.mask.png", "out-masks/coffee.mask.png", "out-head/report.json"],
    "tutorials/video": ["colours.mp4", "over.mp4", "part.mp4"],
    "tutorials/million": ["feats.zarr/zarr.json", "out/coffee.npz", "sample.html"],
    "tutorials/checkpoints": ["out/compare-as-fitted.png", "out-stores/compare.json"],
    "tutorials/own-features": ["out-features/results.png", "out-mine/report.json", "mine.prism"],
}


def run(language: str, text: str, name: str, names: dict[str, object], monkeypatch) -> None:
    """Run one block like a reader; commands must succeed."""
    if language == "python":
        exec(compile(text, name, "exec"), names)
        return
    from patchprism.cli import main

    assert language == "bash"
    for line in text.strip().replace("\\\n", " ").splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code, line


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder that contains a folder ``photos``, as the README assumes."""
    (tmp_path / "photos").mkdir()
    data = Path(next(iter(skimage.__path__))) / "data"
    for name in ("chelsea.png", "coffee.png"):
        (tmp_path / "photos" / name).write_bytes((data / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """``base.pth`` and ``tuned.pth``, which a tutorial compares: random weights in DINOv2's layout."""
    import torch
    from standin import filled_state

    from patchprism.backbones.catalog import RECORDS
    from patchprism.backbones.dinov2 import build

    folder = tmp_path_factory.mktemp("checkpoints")
    with torch.device("meta"):
        network = build(RECORDS["dinov2_vits14"])
    for seed, name in enumerate(("base.pth", "tuned.pth")):
        torch.save(filled_state(network, seed), folder / name)
    yield folder
    for path in folder.iterdir():  # 88 MB each
        path.unlink()


@pytest.fixture
def small_default(monkeypatch):
    """Use the small network if a page names no model: it is fast and needs no download."""
    for place in ("patchprism.jobs.network", "patchprism.lenses.compared"):
        monkeypatch.setattr(f"{place}.choose_model", lambda: "efficientnet_lite2")


def test_the_readme_has_blocks_to_run():
    assert [language for language, _ in BLOCKS].count("python") >= 2
    assert "bash" in [language for language, _ in BLOCKS]


@pytest.mark.parametrize(("language", "text"), BLOCKS, ids=[f"block {i + 1}" for i in range(len(BLOCKS))])
def test_the_readmes_blocks_run(language, text, workplace, monkeypatch):
    run(language, text, "README.md", {"__name__": "readme"}, monkeypatch)
    if language == "bash":
        assert (workplace / "out" / "mine" / "results.png").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_one_after_the_other(
    page, workplace, checkpoints, small_default, monkeypatch
):
    from PIL import Image

    if page == "tutorials/masks":  # its clicks are on photos that the quickstart makes
        data = Path(next(iter(skimage.__path__))) / "data"
        for name in ("astronaut.png", "rocket.jpg"):
            Image.open(data / name).save(workplace / "photos" / Path(name).with_suffix(".png"))
    else:
        monkeypatch.setattr("patchprism.jobs.settings.DEFAULT_SIZE", 112)
    for each in checkpoints.iterdir():
        (workplace / each.name).symlink_to(each)
    names: dict[str, object] = {"__name__": "page"}
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for language, block in blocks(text):
        run(language, block, f"{page}.md", names, monkeypatch)
    missing = [name for name in PAGES[page] if not (workplace / name).is_file()]
    assert not missing


def test_every_page_with_blocks_to_run_is_run():
    marked = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
        if "<!-- runs" in path.read_text(encoding="utf-8")
    }
    assert marked == set(PAGES)
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        assert len(blocks(text)) == text.count("<!-- runs"), page


def test_every_file_that_the_readme_names_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).is_file(), target


def test_the_page_of_commands_equals_their_help_texts():
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


def test_contributing_lists_the_parts_of_src():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE)
    there = [path.stem for path in (ROOT / "src" / "patchprism").iterdir() if not path.name.startswith("_")]
    assert sorted(told) == sorted(set(there) - {"py"})  # py.typed
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert told == settings["contracts"][0]["layers"][::-1]
