"""Outputs are recognised by their record, never by their name; addresses and work folders in every command."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchprism

MODEL = ("--model", "efficientnet_lite2", "--size", "64")
LENSES = ("--lens", "pca", "--lens", "clusters", "--lens", "score")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Change to an empty folder with two photos in ``p``."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b")):
        save_photo(f"p/{name}.png", seed)
    return tmp_path


def save_photo(path, seed=0):
    y, x = np.mgrid[:96, :128]
    photo = np.random.default_rng(seed).integers(0, 60, (96, 128, 3))
    photo[(x - 64) ** 2 + (y - 48) ** 2 < 900] += 150
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo.astype(np.uint8)).save(path)


def tree(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def photos_of(report):
    return [Path(each["photo"]).name for each in json.loads(Path(report).read_text())["photos"]]


USERS = [
    ("render", "results.png", ()),
    ("render", "histogram.png", ("--resume",)),
    ("render", "a.pca.png", ()),
    ("render", "a.overlay.png", ("--overlay", "0.5", "--resume")),
    ("render", "a.npz", ("--arrays",)),
    ("render", "report.json", ()),
    ("render", "prism.safetensors", ("--resume",)),
    ("render", "a.score.png", LENSES),
    ("render", "clusters.png", LENSES),
    ("render", "matches.csv", ("--lens", "matches")),
    ("compare", "compare.json", ("--layer", "5,11")),
    ("compare", "b.compare.png", ("--layer", "5,11")),
]


@pytest.mark.parametrize(("command", "name", "options"), USERS)
@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_the_users_is_never_replaced(run, here, command, name, options, link):
    target = here / f"elsewhere-{name}" if link else here / "out" / name
    (here / "out").mkdir()
    if name.endswith(".png"):
        save_photo(target, 9)
    else:
        target.write_text('{"version": 1, "files": {}}')
    if link:
        (here / "out" / name).symlink_to(target)
    before = tree("out")
    result = run(command, "p", "-o", "out", "--model", "efficientnet_lite2", "--size", "64", *options)
    assert result.code == 1
    assert f"error: cannot write out/{name}: it exists already" in result.err
    assert tree("out") == before


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_the_users_own_results_among_the_photos(run, here, options):
    """A photo called results.png is used and not replaced."""
    for seed, name in enumerate(("results", "histogram", "a.pca")):
        save_photo(f"p/{name}.png", seed)
    before = tree("p")
    result = run("render", "p", "-o", "p", *MODEL, *options)
    assert result.code == 1
    assert "cannot write p/" in result.err
    assert tree("p") == before


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_outputs_are_not_photos(run, here, options):
    """Outputs below the photos or beside them, of lenses, of compare, of a video."""
    assert run("render", "p", "-o", "p/out1", *MODEL, "--overlay", "0.5", *options).code == 0
    result = run("render", "p", "-o", "p", *MODEL, *(() if options else LENSES), *options)
    assert result.code == 0
    assert result.err.startswith("warning: p is inside p, where the photos are; ")
    assert run("compare", "p", "-o", "p", *MODEL, "--layer", "5,11").code == 0
    assert photos_of("p/report.json") == ["a.png", "b.png"]
    for photos in (["p"],) if options else (["p"], ["p/*.png"], ["p/**/*.png"]):
        assert run("render", *photos, "-o", "fresh", *MODEL, *options).code == 0
        assert photos_of("fresh/report.json") == ["a.png", "b.png"]
    # An output that is named explicitly is used as a photo.
    assert run("render", "p/a.png", "p/results.png", "-o", "named", *MODEL, *options).code == 0
    result = run("render", "p/out1", "-o", "third", *MODEL)
    assert (result.code, result.err) == (
        1,
        "error: p/out1: holds only pictures that PatchPrism wrote, and no photo\n",
    )


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_the_report_lists_all_files(run, here, options):
    more = ("--overlay", "0.4", "--arrays", *(options or LENSES))
    assert run("render", "p", "-o", "out", *MODEL, *more).code == 0
    listed = json.loads((here / "out/report.json").read_text())["files"]
    assert {*listed, "report.json"} == set(os.listdir("out"))
    for name, made in listed.items():
        content = (here / "out" / name).read_bytes()
        assert made == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_the_same_folder_again(run, here, options):
    assert run("render", "p", "-o", "out", *MODEL, "--overlay", "0.4", *options).code == 0
    assert run("render", "p", "-o", "out", *MODEL, "--format", "jpg", *options).code == 0
    # The outputs of the first job are still known as ours.
    assert run("render", "p", "-o", "out", *MODEL, "--overlay", "0.4", *options).code == 0
    assert run("render", "out", "-o", "no", *MODEL).code == 1
    # A photo with which the user has replaced an output belongs to the user.
    save_photo("out/a.pca.png", 9)
    mine = (here / "out/a.pca.png").read_bytes()
    result = run("render", "p", "-o", "out", *MODEL, *options)
    assert (result.code, "cannot write out/a.pca.png: it exists already" in result.err) == (1, True)
    assert (here / "out/a.pca.png").read_bytes() == mine
    assert run("render", "out", "-o", "new", *MODEL).code == 0
    assert photos_of("new/report.json") == ["a.pca.png"]


def test_copies_are_recognised_by_their_content(run, here):
    assert run("render", "p", "-o", "out", *MODEL).code == 0
    for path in (here / "out").iterdir():
        shutil.copyfile(path, here / "p" / path.name)
    assert run("render", "p", "-o", "fresh", *MODEL).code == 0
    assert photos_of("fresh/report.json") == ["a.png", "b.png"]


@pytest.mark.parametrize("options", [(), ("--resume",)])
@pytest.mark.parametrize("when", [2, 4, 7])
def test_files_of_a_killed_run_are_ours(run, here, monkeypatch, options, when):
    """Whichever file was renamed last, the next run may replace the files, and does not use them as photos."""
    if when == 4:
        assert run("render", "p", "-o", "p", *MODEL, *options).code == 0
    replace, left = os.replace, [when]

    def die(source, target):
        if Path(target).parent == Path("p") or Path(target).parent == here / "p":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", die)
    assert run("render", "p", "-o", "p", *MODEL, *options).code == 130
    monkeypatch.setattr(os, "replace", replace)
    result = run("render", "p", "-o", "p", *MODEL, "--overlay", "0.5", *options)
    assert result.code == 0, result.err
    assert photos_of("p/report.json") == ["a.png", "b.png"]
    assert not list((here / "p").glob(".patchprism*"))


# ---------------------------------------------------------------- addresses


def memory():
    import fsspec

    return fsspec.filesystem("memory")


COMMANDS = [
    ("render", "p", "-o", "{}"),
    ("render", "p", "-o", "{}", "--resume"),
    ("compare", "p", "-o", "{}", "--layer", "5,11"),
    ("fit", "p", "-o", "{}"),
    ("features", "p", "-o", "{}"),
    ("features", "p", "-o", "f.zarr", "--flat", "{}"),
    ("explore", "p", "--html", "{}"),
    ("render", "p", "-o", "out", "--prism", "{}"),
    ("render", "p", "-o", "out", "--weights", "{}"),
    ("render", "p", "-o", "{}", "--lens", "score"),
    ("video", "p", "-o", "{}.mp4"),
    ("video", "p", "-o", "v.mp4", "--save-prism", "{}"),
    ("video", "{}", "-o", "v.mp4"),
    ("compare", "{}", "-o", "out", "--layer", "5,11"),
    ("explore", "{}", "--html", "x.html"),
]


@pytest.mark.parametrize("address", ["memory://box/{}/x", "nosuch://box/{}/x", "http://127.0.0.1:9/{}/x"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_address_is_written_to_or_refused(run, here, command, address):
    """An address never becomes a local folder with the name of a protocol."""
    address = address.format(abs(hash(command)))
    result = run(*(word.format(address) for word in command), *MODEL, "-q")
    assert result.code in (0, 1), result.err
    assert result.code == 0 or result.err.count("\n") == 1
    assert not [name for name in os.listdir() if ":" in name]
    if result.code == 0:
        assert address.startswith("memory:")
        assert memory().find(address.removeprefix("memory:/"))
    else:
        assert not memory().exists(address.removeprefix("memory:/"))


def test_memory_addresses_are_written_to(run, here):
    out = "memory://kept/out"
    assert run("render", "p", "-o", out, *MODEL).code == 0
    assert run("render", "p", "-o", out, *MODEL, "--overlay", "0.5").code == 0
    assert run("compare", "p", "-o", out, *MODEL, "--layer", "5,11").code == 0
    assert run("fit", "p", "-o", "memory://kept/x.prism", *MODEL).code == 0
    assert run("render", "p", "-o", "out", "--prism", "memory://kept/x.prism").code == 0
    assert run("explore", "p", "--html", "memory://kept/x.html", *MODEL).code == 0
    assert run("features", "p", "-o", "f.zarr", "--flat", "memory://kept/x.parquet", *MODEL).code == 0
    assert {"out", "x.prism", "x.html", "x.parquet"} <= {
        Path(each).name for each in memory().ls("/kept", detail=False)
    }
    memory().pipe_file("/kept/out/a.pca.png", b"mine")
    result = run("render", "p", "-o", out, *MODEL)
    assert (result.code, "cannot write memory://kept/out/a.pca.png" in result.err) == (1, True)
    assert memory().cat_file("/kept/out/a.pca.png") == b"mine"


def test_the_library_accepts_addresses_of_any_type(here):
    view = patchprism.visualize(["p"], model="efficientnet_lite2", size=64)
    assert str(view.save(Path("memory://lib/view"))[0]) == "memory://lib/view/fg_mask.png"
    view.prism.save(Path("memory://lib/x.prism"))
    np.testing.assert_array_equal(
        patchprism.Prism.load("memory://lib/x.prism").scene_mean_, view.prism.scene_mean_
    )
    assert view.explore().save("memory://lib/x.html") == "memory://lib/x.html"
    spaced = (here / "my dogs ü").as_uri()
    assert "%20" in spaced
    assert view.save(spaced)[0].parent == here / "my dogs ü"
    view.prism.save(f"{spaced}/x%23.prism")
    patchprism.Prism.load(here / "my dogs ü" / "x#.prism")
    assert view.explore().save(f"{spaced}/x.html") == here / "my dogs ü/x.html"
    assert sorted(os.listdir()) == ["my dogs ü", "p"]


@pytest.mark.parametrize(
    "command", ["render", "render --resume", "fit", "features", "explore --html x.html", "video"]
)
def test_file_addresses_with_escapes_as_input_and_output(run, here, command):
    (here / "p").rename(here / "my p")
    words, out = command.split(), (here / "my out").as_uri() + (".mp4" if command == "video" else "")
    more = () if words[0] == "explore" else ("-o", out)
    result = run(words[0], (here / "my p").as_uri(), *words[1:], *more, *MODEL)
    assert result.code == 0, result.err
    assert "my p" in os.listdir()
    assert not [name for name in os.listdir() if "%" in name or ":" in name]
    assert (here / ("x.html" if words[0] == "explore" else Path(out).name.replace("%20", " "))).exists()


@pytest.mark.parametrize("options", [(), ("--resume",)])
@pytest.mark.parametrize("name", ["a\u2028b", "c\u0085d", "e\u2029f", "g\x1ch", "i\udcffj", "k\vl"])
def test_names_stay_as_they_are_in_the_report(run, here, name, options):
    (here / "p/a.png").rename(here / f"p/{name}.png")
    assert run("render", f"p/{name}.png", "p/b.png", "-o", "out", *MODEL, *options).code == 0
    report = json.loads((here / "out/report.json").read_text("utf-8"))
    assert report["photos"][0]["photo"] == f"p/{name}.png"
    assert (here / "out" / report["photos"][0]["files"][0]).exists()
    assert f"{name}.pca.png" in report["files"]


def test_temporary_files_of_killed_runs_are_removed(run, here):
    import fcntl

    for name in (
        ".patchprism-0123456789abcdef.part.mp4",
        ".patchprism-1123456789abcdef.part.mp4",
        ".mine.part.png",
    ):
        (here / name).write_text("half")
    (here / ".patchprism-2123456789abcdef.part").mkdir()
    (here / ".patchprism-2123456789abcdef.part/frame-000001.png").write_text("half")
    (here / ".patchprism-3123456789abcdef.part").symlink_to(here / "p")
    with open(".patchprism-1123456789abcdef.part.mp4") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        assert run("fit", "p", "-o", "x.prism", *MODEL).code == 0
    assert sorted(name for name in os.listdir() if "part" in name) == [
        ".mine.part.png",
        ".patchprism-1123456789abcdef.part.mp4",
        ".patchprism-3123456789abcdef.part",
    ]
    assert sorted(os.listdir("p")) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "command",
    [
        ("fit", "f.zarr", "-o", "f.zarr/zarr.json"),
        ("explore", "f.zarr", "--html", "f.zarr/names/c/0"),
        ("explore", "p", "--prism", "x.prism", "--html", "x.prism"),
        ("video", "p", "--save-prism", "p/a.png", "-o", "v.mp4"),
    ],
)
def test_no_input_is_overwritten(run, here, command):
    assert run("features", "p", "-o", "f.zarr", *MODEL).code == 0
    assert run("fit", "p", "-o", "x.prism", *MODEL).code == 0
    before = tree(".")
    result = run(*command, *(() if "x.prism" in command or "f.zarr" in command else MODEL))
    assert result.code == 1
    assert "this job" in result.err
    assert tree(".") == before
