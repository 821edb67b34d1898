"""``render --lens`` and ``compare`` as a shell runs them: files, report, and refusals that write nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

MODEL = ("--model", "efficientnet_lite2", "--size", "96", "--foreground", "none")


@pytest.fixture
def folder(tmp_path, photos):
    """Two photos, ``a.png`` and ``b.png``."""
    for name, photo in zip("ab", photos, strict=False):
        big = Image.fromarray(photo).resize((192, 144), Image.Resampling.NEAREST)
        big.save(tmp_path / f"{name}.png")
    return tmp_path


def names(path):
    return sorted(each.name for each in path.iterdir())


def test_each_lens_writes_the_documented_files(run, folder):
    lenses = ("score", "norm", "similarity", "matches", "clusters")
    asked = [word for name in lenses for word in ("--lens", name)]
    result = run(
        "render", folder / "a.png", folder / "b.png", *MODEL, *asked, "--at", "a:20,30", "--at", "2:100,100",
        "--clusters", 3, "--arrays", "-o", folder / "out",
    )  # fmt: skip
    assert result.code == 0, result.err
    of_photo = [
        f"{stem}.{end}"
        for stem in "ab"
        for end in (
            "clusters.npz", "clusters.png", "norm.npz", "norm.png", "score.npz", "score.png",
            "similarity-1.png", "similarity-2.png", "similarity.npz",
        )
    ]  # fmt: skip
    shared = ["clusters.npz", "clusters.png", "matches-1-2.png", "matches.csv", "matches.npz", "norm.png"]
    shared += ["prism.safetensors", "report.json", "score.png", "similarity-1.png", "similarity-2.png"]
    shared += [f"{lens}.txt" for lens in lenses]
    assert names(folder / "out") == sorted(of_photo + shared)
    report = json.loads((folder / "out" / "report.json").read_text())
    assert list(report["lenses"]) == list(lenses)
    assert report["lenses"]["clusters"]["clusters"] == 3
    assert [point["at"] for point in report["lenses"]["similarity"]["points"]] == [[20, 30], [100, 100]]
    assert "a.norm.png" in report["photos"][0]["files"]
    with Image.open(folder / "out" / "a.norm.png") as picture:
        assert picture.size == (192, 144)


@pytest.mark.parametrize(
    ("foreground", "words"),
    [
        (("object",), "the coordinate along the foreground direction"),
        (("pca",), "principal component 1 of all patches"),
        (("pca", "--foreground-component", "2"), "principal component 2 of all patches"),
    ],
)
def test_the_caption_explains_the_score(run, folder, foreground, words):
    asked = (*MODEL[:4], "--foreground", *foreground, "--lens", "score", "-o", folder / "out", "-q")
    assert run("render", folder / "a.png", folder / "b.png", *asked).code == 0
    assert words in (folder / "out" / "score.txt").read_text()


def test_pca_is_the_default_and_other_lenses_do_not_change_its_files(run, folder):
    assert run("render", folder / "a.png", folder / "b.png", *MODEL, "-o", folder / "plain").code == 0
    both = ("--lens", "pca", "--lens", "norm")
    assert run("render", folder / "a.png", folder / "b.png", *MODEL, *both, "-o", folder / "both").code == 0
    plain = set(names(folder / "plain"))
    assert set(names(folder / "both")) - plain == {"norm.png", "norm.txt", "a.norm.png", "b.norm.png"}
    for name in plain - {"report.json"}:
        assert (folder / "plain" / name).read_bytes() == (folder / "both" / name).read_bytes(), name
    assert "lenses" not in json.loads((folder / "plain" / "report.json").read_text())


def test_space_and_upsample_change_the_pictures_and_the_report(run, folder):
    pictures = {}
    for label, options in {
        "plain": (),
        "oklab": ("--space", "oklab"),
        "guided": ("--upsample", "guided", "--overlay", "0.5"),
    }.items():
        assert run("render", folder / "a.png", *MODEL, *options, "-o", folder / label).code == 0
        with Image.open(folder / label / "a.pca.png") as picture:
            pictures[label] = np.asarray(picture)
    assert pictures["plain"].shape == pictures["oklab"].shape == pictures["guided"].shape
    assert (pictures["plain"] != pictures["oklab"]).mean() > 0.5
    assert len(np.unique(pictures["guided"].reshape(-1, 3), axis=0)) > len(
        np.unique(pictures["plain"].reshape(-1, 3), axis=0)
    )
    assert json.loads((folder / "oklab" / "report.json").read_text())["prism"]["space"] == "oklab"
    # A prism sets the colour space.
    again = ("--prism", folder / "oklab" / "prism.safetensors", "-o", folder / "again")
    assert run("render", folder / "a.png", *again).code == 0
    assert (folder / "again" / "a.pca.png").read_bytes() == (folder / "oklab" / "a.pca.png").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lens", "xray"), "lens must be one of"),
        (("--lens", "similarity"), "the lens similarity needs a point"),
        (("--lens", "similarity", "--at", "a"), "at must be PHOTO:x,y"),
        (("--lens", "similarity", "--at", "c:1,2"), "no photo is called 'c'; choose from a.png, b.png"),
        (("--lens", "similarity", "--at", "a:192,2"), "is outside a.png, which has 192 x 144 pixels"),
        (("--lens", "pca", "--lens", "similarity", "--at", "a:500,2"), "is outside a.png"),
        (("--at", "a:1,2"), "at is only for the lenses"),
        (("--lens", "attention"), "efficientnet_lite2 cannot give its attention"),
        (("--lens", "matches", "--match-photo", "1"), "the lens matches needs at least two photos, got 1"),
        (("--lens", "matches", "--match-photo", "c"), "no photo is called 'c'"),
        (("--lens", "norm", "--match-photo", "1"), "--match-photo is only for the lens matches"),
        (
            ("--lens", "clusters", "--clusters", "many"),
            "clusters must be 'auto' or a whole number from 2 to 64",
        ),
        (("--lens", "clusters", "--clusters", "1"), "clusters must be 'auto' or a whole number from 2 to 64"),
        (("--space", "hsv"), "space must be one of rgb, oklab"),
        (("--upsample", "cubic"), "upsample must be one of"),
    ],
)
def test_refusals_write_nothing(run, folder, options, message):
    result = run("render", folder / "a.png", folder / "b.png", *MODEL, *options, "-o", folder / "out")
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert message in result.err
    assert not (folder / "out").exists()


def test_compare_writes_its_grid(run, folder):
    result = run(
        "compare",
        folder / "a.png",
        folder / "b.png",
        *MODEL,
        "--layer",
        "9,13",
        "--arrays",
        "-o",
        folder / "out",
    )
    assert result.code == 0, result.err
    assert names(folder / "out") == [
        "a.compare.npz", "a.compare.png", "b.compare.npz", "b.compare.png",
        "compare-as-fitted.png", "compare.json", "compare.png", "compare.txt",
    ]  # fmt: skip
    assert "the reference" in result.out
    assert "shuffled patches" in result.out
    assert len(json.loads((folder / "out" / "compare.json").read_text())["cells"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layer", "9"), "compare needs at least two models or two layers"),
        (("--layer", "9,x"), "layer must be a number or several like 2,5,8,11, got '9,x'"),
        (("--layer", "9,77"), "has no layer 77"),
        (("--layer", "9,13", "--facet", "key"), "has no facet 'key'"),
    ],
)
def test_compare_refuses(run, folder, options, message):
    result = run("compare", folder / "a.png", *MODEL, *options, "-o", folder / "out")
    assert result.code == 1
    assert message in result.err
    assert not (folder / "out").exists()


def test_a_photo_that_fails_is_named_and_the_others_are_compared(run, folder):
    (folder / "bad.png").write_bytes(b"no photo")
    result = run("compare", folder, *MODEL, "--layer", "9,13", "-o", folder / "out", "-q")
    assert result.code == 3
    assert "bad.png" in result.err
    assert "a.compare.png" in names(folder / "out")
