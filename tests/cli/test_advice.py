"""Advice in errors: missing packages, misspelt names of options and commands, and normalisation of photos."""

from __future__ import annotations

import json
import pickle
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from patchprism.errors import EngineError, ExtraError
from patchprism.photos.framing import Framing
from patchprism.prism.estimator import Prism

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ("--model", "efficientnet_lite2", "--size", "64")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for name in ("a.png", "photo.jpg"):
        Image.fromarray(photo).save(tmp_path / name)
    for name in ("clip.mp4", "feats.parquet", "x.prism", "w.pth"):
        (tmp_path / name).write_bytes(b"no photo" * 20)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "prism.safetensors").write_bytes(b"")
    (tmp_path / "f.zarr").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("render", "clip.mp4", "-o", "out", *SMALL), "for videos, use `patchprism video`"),
        (("render", "*.mp4", "-o", "out", *SMALL), "for videos, use `patchprism video`"),
        (("explore", "clip.mp4", "--html", "x.html", *SMALL), "for videos, use `patchprism video`"),
        (("fit", "clip.mp4", "-o", "p.prism", *SMALL), "for videos, use `patchprism video`"),
        (("render", "x.prism", "-o", "out", *SMALL), "give a prism as --prism FILE"),
        (("render", "w.pth", "-o", "out", *SMALL), "give weights as --weights FILE"),
        (("fit", "feats.parquet", "-o", "p.prism", *SMALL), "give the feature store (.zarr)"),
        (
            ("render", "a.png", "-o", "out", "--prism", "photo.jpg"),
            "--prism FILE is a prism from `patchprism fit`",
        ),
        (
            ("render", "a.png", "-o", "out", "--prism", "clip.mp4"),
            "--prism FILE is a prism from `patchprism fit`",
        ),
        (("render", "a.png", "-o", "out", "--prism", "w.pth"), "give weights as --weights FILE"),
        (("render", "a.png", "-o", "out", "--prism", "one"), "give the prism inside, one/prism.safetensors"),
        (("video", "photo.jpg", "-o", "o.mp4", *SMALL), "use `patchprism render`"),
        (("video", "x.prism", "-o", "o.mp4", *SMALL), "give a prism as --prism FILE"),
        (("video", "f.zarr", "-o", "o.mp4", *SMALL), "use `patchprism render`"),
        (("render", "a.png", "-o", "out", "--model", "facebook/dinov2-base"), "hf:facebook/dinov2-base"),
        (("render", "a.png", "-o", "out", "--weights", "one"), "is a folder; give the file inside"),
        (("render", "a.png", "-o", "out", *SMALL, "--mean", "1,2"), "mean must be three numbers like"),
        (("render", "a.png", "-o", "out", *SMALL, "--mean", "1e39"), "--mean must be three numbers, got"),
        (("render", "a.png", "-o", "out", *SMALL, "--std", "0"), "--std must be three positive numbers"),
        (("render", "a.png", "-o", "out", *SMALL, "--std", "1e-60"), "--std must be three positive numbers"),
    ],
)
def test_the_error_names_what_is_meant(
    words: tuple[str, ...],
    advice: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    from patchprism.cli import main

    monkeypatch.setattr("sys.argv", ["patchprism", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 1
    assert error.count("\n") == 1
    assert advice in error


def _without(name: str, cause: str = "") -> ImportError:
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    if not cause:
        return error
    outer = ImportError(f"Install {cause}")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (_without("av"), "pip install 'patchprism[video]'"),
        (_without("s3fs", "s3fs to access S3"), "needs the package s3fs: pip install 's3fs'"),
        (_without("smbclient"), "pip install 'smbprotocol'"),
        (ImportError("DLL load failed"), "pip install 'patchprism[video]'"),
    ],
)
def test_missing_packages_are_named(error: ImportError, fix: str) -> None:
    found = ExtraError.of(error, "video", "reading", "av")
    assert fix in str(found)
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


@pytest.mark.parametrize(
    ("url", "package"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs"), ("http://h/x", "aiohttp")]
)
def test_addresses_name_the_package_that_opens_them(
    url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchprism.support.folders import filesystem

    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(
        sys.modules, "fsspec.implementations.http", raising=False
    )  # the exception keeps a reference to its package
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url.split(":")[0], raising=False)
    with pytest.raises(ExtraError, match=f"needs the package {package}: pip install"):
        filesystem(url)


def test_a_ray_address_names_rays_client(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    from patchprism.jobs.engines.ray import RayEngine

    def refuse(words: str) -> None:
        def init(**_: object) -> None:
            raise RuntimeError(words)

        monkeypatch.setattr(ray, "init", init)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    refuse("Ray Client requires pip package `ray[client]`. If you installed ...")
    with pytest.raises(ExtraError, match=r"pip install 'ray\[client\]'"), RayEngine():
        pass
    refuse("no")
    with pytest.raises(EngineError, match="cannot be started"), RayEngine():
        pass


def test_mean_and_deviation_in_every_command(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands that frame photos accept them, and their outputs record them."""
    from patchprism.cli import main

    framed = ("--mean", "0.4", "--std", "0.2,0.3,0.4")
    for words in (
        ("render", "a.png", "-o", "memory", *SMALL, *framed),
        ("render", "a.png", "-o", "many", "--resume", *SMALL, *framed),
        ("render", "a.png", "-o", "plain", *SMALL),
        ("render", "a.png", "-o", "seed", *SMALL, *framed, "--preset", "seed"),
        ("fit", "a.png", "-o", "p.prism", *SMALL, *framed),
        ("render", "a.png", "-o", "by_prism", "--prism", "p.prism"),
        ("features", "a.png", "-o", "g.zarr", *SMALL, *framed),
        ("render", "g.zarr", "-o", "stored"),
        ("render", "g.zarr", "-o", "stored", *framed),
        ("explore", "a.png", "--html", "x.html", *SMALL, *framed),
        ("compare", "a.png", "-o", "compared", "--layer", "5,9", *SMALL, *framed),
    ):
        monkeypatch.setattr("sys.argv", ["patchprism", *words, "-q"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code in (0, None), words
    mean, std = [0.4] * 3, [0.2, 0.3, 0.4]
    for out in ("memory", "many", "seed", "by_prism", "stored"):
        framing = Prism.load(here / out / "prism.safetensors").origin["framing"]
        assert (framing["mean"], framing["std"]) == (mean, std)
        assert json.loads((here / out / "report.json").read_text())["framing"] == framing
    assert Framing.from_dict(
        json.loads((here / "compared" / "compare.json").read_text())["models"][0]["framing"]
    ).std == tuple(std)
    pictures = [
        Image.open(here / out / "a.pca.png").tobytes() for out in ("memory", "many", "by_prism", "plain")
    ]
    assert pictures[0] == pictures[1] == pictures[2] != pictures[3]


def test_the_pages_command_contains_them_if_they_are_not_the_models() -> None:
    import patchprism
    from patchprism.explorer.build import _command

    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    common = {"model": "efficientnet_lite2", "size": 64}
    for options, said in (
        ({}, []),
        ({"preset": "seed"}, []),
        ({"std": (0.5, 0.25, 1)}, [["--std=0.5,0.25,1.0"]]),
        ({"preset": "seed", "mean": [0.4] * 3}, [["--mean=0.4,0.4,0.4"]]),
    ):
        found = _command(patchprism.visualize([photo], **common, **options), None)["options"]
        assert [each for each in found if each[0].startswith(("--mean", "--std"))] == said


def test_a_store_fixes_mean_and_deviation(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    import patchprism
    from patchprism.errors import OptionError

    monkeypatch.setattr("sys.argv", ["patchprism", "features", "a.png", "-o", "g.zarr", *SMALL, "-q"])
    from patchprism.cli import main

    with pytest.raises(SystemExit):
        main()
    with pytest.raises(OptionError, match="mean is fixed by the feature store"):
        patchprism.visualize("g.zarr", mean=[0.1, 0.2, 0.3])
