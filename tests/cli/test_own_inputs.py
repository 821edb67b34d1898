"""A run never replaces its inputs: the prism, a network's folder, a feature store, the photos."""

from __future__ import annotations

import json
import os
import shutil
import time
from itertools import pairwise

import pytest
import toys
from roads import extract_features

import patchprism
from patchprism.errors import OutputError
from patchprism.jobs.engines.local import LocalEngine
from patchprism.jobs.settings import Settings
from patchprism.prism.estimator import Prism

MODEL = ("--model", "efficientnet_lite2", "--size", "64")
MASK = ("--mask-threshold", "0.6", "--closing", "1", "-q")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Change to a folder with photos in ``p`` and the prism of a job in ``out``."""
    monkeypatch.chdir(tmp_path)
    toys.make_photos(tmp_path / "p", 2)
    return tmp_path


def make_store():
    toy = toys.Toy()
    extract_features(["p"], "a.zarr", settings=Settings(size=32), engine=LocalEngine(), backbone=toy)


@pytest.mark.parametrize("options", [(), ("--resume",), ("--lens", "clusters")])
@pytest.mark.parametrize("fitted_by", ["render", "fit"])
def test_the_prism_that_is_read_is_not_replaced(run, here, options, fitted_by):
    prism = here / "out" / "prism.safetensors"
    out = "out" if fitted_by == "render" else prism
    assert run(fitted_by, "p", "-o", out, *MODEL, "-q").code == 0
    before = prism.read_bytes()
    for _ in range(2):
        result = run("render", "p", "-o", "out", "--prism", prism, *MASK, *options)
        assert result.code == 0, result.err
        assert prism.read_bytes() == before
        assert str(prism.relative_to(here)) not in result.out.splitlines()
    report = json.loads((here / "out" / "report.json").read_text())
    assert "prism.safetensors" not in report["files"]
    # Its owner has not changed either: a fit replaces the output of a job, but not a user's file.
    again = run("render", "p", "-o", "out", *MODEL, "--components", "2,1,3", "-q", *options)
    assert again.code == (0 if fitted_by == "render" else 1)
    assert (prism.read_bytes() == before) == (fitted_by == "fit")


def test_links_to_the_prism_are_recognised(run, here):
    assert run("render", "p", "-o", "out", *MODEL, "-q").code == 0
    prism = here / "out" / "prism.safetensors"
    before = prism.read_bytes()
    (here / "link.prism").symlink_to(prism)
    (here / "folder").symlink_to("out")
    (here / "hard.prism").hardlink_to(prism)
    for name in ("out/../out/prism.safetensors", "link.prism", "folder/prism.safetensors", "hard.prism"):
        assert run("render", "p", "-o", "out", "--prism", name, *MASK).code == 0
        assert prism.read_bytes() == before, name
    # In another folder, the used prism is written, including its mask options.
    assert run("render", "p", "-o", "other", "--prism", "out/prism.safetensors", *MASK).code == 0
    assert Prism.load("other/prism.safetensors").mask_threshold == 0.6


def test_from_python(here):
    toy = toys.Toy()

    def show(**options):
        return patchprism.visualize("p", backbone=toy, size=32, **options)

    show().save("out")
    before = (here / "out" / "prism.safetensors").read_bytes()
    view = show(prism=Prism.load("out/prism.safetensors"), mask_threshold=0.6)
    os.chdir("p")  # the path still means the same file
    written = view.save("../out")
    assert (here / "out" / "prism.safetensors").read_bytes() == before
    assert [path.name for path in written][-1] == "report.json"
    assert "prism.safetensors" not in {path.name for path in written}


def test_a_prism_that_is_fitted_again_is_no_longer_the_file_that_was_read(here, tmp_path):
    toy = toys.Toy()
    view = patchprism.visualize("p", backbone=toy, size=32)
    view.prism.save("a.prism")
    loaded = Prism.load("a.prism")
    assert loaded.loaded_from == str(tmp_path / "a.prism")
    assert loaded.fit(view.features).loaded_from == ""


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (("fit", "p", "-o", "net/model.safetensors", "-m", "hf:net"), "net/model.safetensors"),
        (("fit", "p", "-o", "net/new.prism", "-m", "hf:net"), "net/new.prism"),
        (("explore", "p", "--html", "net/config.json", "-m", "hf:net"), "net/config.json"),
        (("explore", "p", "--html", "a.prism", "--prism", "a.prism"), "a.prism"),
        (("explore", "p", "-o", "net/x", "-m", "hf:net", "--no-open"), "net/x"),
        (("features", "p", "-o", "a.zarr", "--flat", "net/config.json", "-m", "hf:net"), "net/config.json"),
        (("video", "p", "-o", "v", "--save-prism", "a.prism", "--prism", "a.prism"), "a.prism"),
        (("video", "p", "-o", "a.mp4", "--prism", "a.mp4"), "a.mp4"),
        (("render", "a.zarr", "-o", "a.zarr"), "a.zarr"),
        (("render", "a.zarr", "-o", "a.zarr/pictures"), "a.zarr/pictures"),
        (("explore", "a.zarr", "-o", "a.zarr", "--no-open"), "a.zarr"),
        (("explore", "a.zarr", "--html", "a.zarr/zarr.json"), "a.zarr/zarr.json"),
        (("fit", "a.zarr", "-o", "a.zarr/zarr.json"), "a.zarr/zarr.json"),
    ],
)
def test_inputs_are_refused_as_outputs(run, here, arguments, target):
    if "a.zarr" in arguments[1]:
        make_store()
    else:
        (here / "net").mkdir()
        (here / "net" / "config.json").write_text('{"model_type": "dinov2"}')
        (here / "net" / "model.safetensors").write_bytes(b"weights")
        prism = patchprism.visualize("p", backbone=toys.Toy(), size=32).prism
        prism.origin = {"model": "efficientnet_lite2"}
        prism.save("a.prism")
        shutil.copy("a.prism", "a.mp4")
    before = toys.tree(here)
    result = run(*arguments)
    assert result.code == 1
    before_target = [option for option, value in pairwise(arguments) if value == target]
    flag = next(option for option in before_target if option in ("-o", "--flat", "--html", "--save-prism"))
    flag = flag.replace("-o", "--out")
    assert result.err.endswith(f"error: cannot write {flag} '{target}': this job reads it\n")
    assert toys.tree(here) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("features", "a.zarr", "-o", "a.zarr", "--overwrite"),
        ("features", "p", "-o", "p", "--overwrite"),
        ("features", "p/p0000.png", "-o", "p/p0000.png", "--overwrite"),
        ("features", "p", "-o", "a.zarr", "--flat", "p/p0000.png"),
        ("features", "p", "-o", "a.zarr", "--flat", "a.zarr"),
        ("render", "p", "-o", "p/p0000.png"),
        ("fit", "p", "-o", "p/p0000.png"),
        ("compare", "p", "-o", "p/p0000.png"),
        ("explore", "p", "--html", "p/p0000.png"),
        ("explore", "p", "-o", "p/p0000.png", "--no-open"),
        ("video", "p", "-o", "p/p0000.png"),
        ("video", "p", "-o", "v", "--save-prism", "p/p0000.png"),
        ("video", "p", "-o", "v.mp4", "--save-prism", "v.mp4"),
    ],
)
def test_no_option_allows_replacing_inputs(run, here, arguments):
    make_store()
    before = toys.tree(here)
    result = run(*arguments, *MODEL)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert toys.tree(here) == before


def test_a_refit_in_the_explorer_does_not_replace_the_prism_that_was_read(here):
    pytest.importorskip("fastapi", reason="the server is an extra")
    from patchprism.explorer.build import build_message
    from patchprism.explorer.work import FitRequest, Workshop

    toy = toys.Toy()
    patchprism.visualize("p", backbone=toy, size=32).save("out")
    before = (here / "out" / "prism.safetensors").read_bytes()
    view = patchprism.visualize("p", backbone=toy, size=32, prism=Prism.load("out/prism.safetensors"))
    workshop = Workshop(view, build_message(view).to_bytes(), toy)
    shown = {"scaling": "minmax", "components": [1, 2, 3], "space": "rgb"}
    shown |= {"mask_side": "above", "mask_threshold": 0.7, "opening": 0, "closing": 0}
    try:
        session = workshop.session(workshop.open())
        workshop.save(session, "out", shown)
        assert (here / "out" / "prism.safetensors").read_bytes() == before
        job, end = workshop.start(session, FitRequest(foreground="pca")), time.monotonic() + 60
        while not job.over and time.monotonic() < end:
            time.sleep(0.01)
        assert job.state == "done", job.error
        with pytest.raises(OutputError, match=r"prism\.safetensors: this job reads it"):
            workshop.save(session, "out", shown)
        assert (here / "out" / "prism.safetensors").read_bytes() == before
        workshop.save(session, "elsewhere", shown)
    finally:
        workshop.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("render", "p", "-o"),
        ("render", "p", "--resume", "-o"),
        ("compare", "p", "--layer", "2,3", "-m", "efficientnet_lite2", "-o"),
        ("features", "p", "-o"),
        ("video", "p", "-o"),
        ("explore", "p", "--no-open", "-o"),
        ("fit", "p", "-o"),  # with a prism inside
    ],
)
@pytest.mark.parametrize("below", ["", "/x"])
@pytest.mark.parametrize("link", [True, False])
def test_files_instead_of_folders_are_named(run, here, arguments, below, link):
    if link:
        (here / "thing").symlink_to("nowhere")
    else:
        (here / "thing").write_text("mine")
    out = f"thing{below}"
    file = "/a.prism" if arguments[0] == "fit" else ""
    result = run(*arguments[:-1], *MODEL, "-o", out + file)
    what = "a link to a file that does not exist" if link else "a file, not a folder"
    assert (result.code, result.err) == (
        1,
        f"error: cannot write --out '{out}{file}': {'thing' if below or file else 'it'} is {what}\n",
    )
    assert (here / "thing").is_symlink() == link
    assert link or (here / "thing").read_text() == "mine"
    assert not (here / "nowhere").exists()
