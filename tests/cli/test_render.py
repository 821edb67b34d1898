"""`patchprism render` on the command line: its files, its output, and its errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchprism.prism.estimator import Prism

MODEL = ("--model", "efficientnet_lite2", "--size", "96")
FIGURES = ["fg_mask", "results", "results_raw", "histogram"]


@pytest.fixture
def photos(tmp_path):
    """Three photos of different shapes, two of them with equal stems."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, (h, w) in {"a.png": (120, 90), "b.jpg": (64, 200), "more/a.png": (33, 50)}.items():
        y, x = np.mgrid[:h, :w]
        disc = ((y / h - 0.5) ** 2 + (x / w - 0.5) ** 2 < 0.08)[..., None]
        noise = rng.integers(0, 60, (h, w, 3))
        picture = np.where(disc, [230, 120, 20], [40, 90, 160]) * (0.6 + 0.4 * (y / h))[..., None]
        Image.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8)).save(folder / name)
    return folder


def test_it_writes_the_files_that_it_lists(run, photos, tmp_path):
    out = tmp_path / "out"
    result = run("render", photos, "--out", out, *MODEL, "--overlay", "0.5", "--arrays")
    assert result.code == 0, result.err
    stems = ["a", "b", "a-2"]
    expected = {f"{name}.png" for name in FIGURES} | {"results.txt", "prism.safetensors", "report.json"}
    expected |= {f"{stem}.{end}" for stem in stems for end in ("pca.png", "overlay.png", "npz")}
    assert {path.name for path in out.iterdir()} == expected
    assert result.err == ""
    assert "wrote   16 files" in result.out
    assert "foreground: score" in result.out

    report = json.loads((out / "report.json").read_text())
    assert report["model"]["name"] == "efficientnet_lite2"
    assert len(report["model"]["weights"]["sha256"]) == 64
    assert report["settings"]["preset"] == "default"
    assert report["prism"]["threshold_from"] == "labels"
    assert report["prism"]["fitted_here"] is True
    assert sum(report["prism"]["explained_variance_ratio"]["object"]) <= 1 + 1e-9
    assert set(report["seconds"]) == {
        "load model",
        "read photos and run network",
        "fit prism",
        "colour and write",
    }
    assert [photo["files"][0] for photo in report["photos"]] == ["a.pca.png", "b.pca.png", "a-2.pca.png"]
    assert report["failures"] == []

    prism = Prism.load(out / "prism.safetensors")
    for photo, stem in zip(report["photos"], stems, strict=True):
        with Image.open(photo["photo"]) as original, Image.open(out / f"{stem}.pca.png") as picture:
            assert picture.size == original.size == tuple(photo["size"][::-1])
        arrays = np.load(out / f"{stem}.npz")
        h, w = photo["grid"]
        assert {name: (a.shape, a.dtype) for name, a in arrays.items()} == {
            "score": ((h, w), np.float32),
            "foreground": ((h, w), np.bool_),
            "rgb": ((h, w, 3), np.float32),
            "rgb_all": ((h, w, 3), np.float32),
        }
        assert not arrays["rgb"][~arrays["foreground"]].any()
        beyond = (
            arrays["score"] > prism.threshold_
            if prism.side_ == "above"
            else arrays["score"] < prism.threshold_
        )
        np.testing.assert_array_equal(arrays["foreground"], beyond)


def test_every_pixel_has_the_colour_of_its_patch(run, photos, tmp_path):
    assert run("render", photos / "b.jpg", "-o", tmp_path / "out", *MODEL, "--arrays").code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())["photos"][0]
    rgb = np.load(tmp_path / "out" / "b.npz")["rgb"]
    picture = np.asarray(Image.open(tmp_path / "out" / "b.pca.png"))
    left, top, right, bottom = report["crop"]
    for row, column in ((3, 5), (0, 0), (5, 17)):
        h, w = rgb.shape[:2]
        y = int(top + (row + 0.5) / h * (bottom - top))
        x = int(left + (column + 0.5) / w * (right - left))
        np.testing.assert_array_equal(picture[y, x], np.rint(rgb[row, column] * 255))


def test_quiet_prints_paths_and_nothing_else(run, photos, tmp_path):
    result = run("render", photos, "--out", tmp_path / "out", *MODEL, "--quiet", "--format", "jpg")
    assert result.code == 0
    assert result.err == ""
    lines = result.out.splitlines()
    assert {str(path) for path in (tmp_path / "out").iterdir()} == set(lines)
    assert len(lines) == len(set(lines)) == 4 + 1 + 3 + 2
    assert (tmp_path / "out" / "results.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


def test_the_same_command_gives_the_same_bytes(run, photos, tmp_path):
    for name in ("one", "two"):
        assert run("render", photos, "--out", tmp_path / name, *MODEL, "--quiet").code == 0
    for path in (tmp_path / "one").iterdir():
        if path.name != "report.json":  # which contains times
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_pictures_written_into_the_folder_of_photos_are_not_used_as_photos(run, photos):
    out = photos / "out"
    assert run("render", photos, "--out", out, *MODEL, "-q").code == 0
    again = run("render", photos, "--out", out, *MODEL, "-q")
    assert again.code == 0
    assert len(json.loads((out / "report.json").read_text())["photos"]) == 3


def test_a_saved_prism_gives_the_same_colours_and_sets_the_model(run, photos, tmp_path):
    options = (*MODEL, "--preset", "default", "--scaling", "percentile", "--arrays", "-q")
    assert run("render", photos, "--out", tmp_path / "fit", *options).code == 0
    prism = tmp_path / "fit" / "prism.safetensors"
    assert run("render", photos, "--out", tmp_path / "use", "--prism", prism, "--arrays", "-q").code == 0
    for name in ("a.npz", "b.npz", "a-2.npz"):
        first, second = (np.load(tmp_path / folder / name) for folder in ("fit", "use"))
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])
    report = json.loads((tmp_path / "use" / "report.json").read_text())
    assert report["settings"]["model"] == "efficientnet_lite2"
    assert report["settings"]["size"] == 96
    assert report["prism"]["fitted_here"] is False
    assert (tmp_path / "use" / "prism.safetensors").read_bytes() == prism.read_bytes()


def test_a_prism_of_another_fit_is_refused_with_the_difference(run, photos, tmp_path):
    assert run("render", photos, "--out", tmp_path / "fit", *MODEL, "-q").code == 0
    prism = tmp_path / "fit" / "prism.safetensors"
    for extra, words in (
        (("--size", "128"), "another framing (size): 96, now 128"),
        (("--preset", "seed"), "another framing (mean)"),
        (("--dtype", "bfloat16"), "another dtype: float32, now bfloat16"),
    ):
        result = run("render", photos, "--out", tmp_path / "no", "--prism", prism, *extra)
        assert result.code == 1
        assert words in result.err
        assert not (tmp_path / "no").exists()
    forced = run("render", photos, "-o", tmp_path / "yes", "--prism", prism, "--size", "128", "--force", "-q")
    assert forced.code == 0


def test_a_bad_photo_is_named_and_changes_the_exit_code_and_the_others_are_done(run, photos, tmp_path):
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("I am no photo")
    result = run("render", photos, "--out", tmp_path / "out", *MODEL)
    assert result.code == 3
    assert f"failed: {photos / 'empty.jpg'}: is empty" in result.err
    assert f"failed: {photos / 'text.png'}: " in result.err
    assert "2 of the photos failed; the others are done" in result.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["photos"]) == 3
    assert [failure["photo"] for failure in report["failures"]] == [
        str(photos / "empty.jpg"),
        str(photos / "text.png"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
@pytest.mark.parametrize(
    "command", [("render", "-o", "out"), ("render", "-o", "out", "--resume"), ("explore", "--html", "out")]
)
def test_special_files_in_a_folder_are_bad_photos(run, photos, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (photos / "circle.png").symlink_to("circle.png")
    (photos / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(photos / "pipe.png")
    result = run(command[0], photos, *command[1:], *MODEL)
    assert result.code == 3
    assert "circle.png: too many levels of symbolic links" in result.err
    assert "nowhere.png: no such file\n" in result.err
    assert "pipe.png: is a pipe, not a file\n" in result.err


def test_nothing_is_written_when_all_photos_are_bad(run, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 broken")
    result = run("render", bad, "--out", tmp_path / "out", *MODEL)
    assert result.code == 1
    assert result.err.startswith(f"error: {bad}: ")
    assert "nothing was done" in result.err
    assert result.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "dinov2_vits15"), "unknown model 'dinov2_vits15': did you mean dinov2_vits14"),
        (("--threshold", "1.5"), "threshold must be 'auto', 'otsu' or a number from 0 to 1, got 1.5"),
        (("--threshold", "half"), "threshold must be 'auto', 'otsu' or a number from 0 to 1, got 'half'"),
        (
            ("--foreground", "left"),
            "foreground must be one of auto, object, mask, pca, above, below, none, got 'left'",
        ),
        (("--scaling", "log"), "scaling must be one of minmax, percentile, sigmoid, got 'log'"),
        (("--preset", "sed"), "preset must be one of default, seed, got 'sed'"),
        (("--preset", "seed", "--size", "450"), "size must be a multiple of the patch size 16"),
        (("--components", "1,2"), "components must be three numbers like 1,2,3, got '1,2'"),
        (("--components", "1,2,9"), "components must be three whole numbers from 1 to 8"),
        (("--device", "tpu"), "device must be one of auto, cpu, cuda, mps, got 'tpu'"),
        (("--dtype", "int8"), "dtype must be one of auto, float32, bfloat16, float16, got 'int8'"),
        (("--overlay", "2"), "overlay must be a number from 0 to 1, got 2.0"),
        (("--format", "gif"), "format must be one of png, jpg, got 'gif'"),
        (("--prism", "none.prism"), "prism 'none.prism': no such prism file"),
        (("--threshold", "1", "--foreground", "above"), "no patch's score is above the threshold 1"),
    ],
)
def test_a_failure_is_one_line_with_the_option_the_value_and_what_is_allowed(
    run, photos, tmp_path, options, words
):
    result = run("render", photos / "a.png", "--out", tmp_path / "out", *MODEL, *options)
    assert result.code == 1
    assert result.out == ""
    assert result.err.removeprefix("error: ").removeprefix("--").startswith(words), result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("render",), "Missing argument"),
        (("render",), "PHOTO... [OPTIONS]"),
        (("fit", "a.png"), "Missing option"),
        (("render", "a.png", "-o", "out", "--batch-size", "x"), "batch-size"),
        (("render", "a.png", "-o", "out", "--colour"), "No such option"),
        (("paint",), "No such command"),
    ],
)
def test_wrong_usage_has_exit_code_two(run, args, words):
    result = run(*args)
    assert result.code == 2
    assert words in result.err


def test_a_name_that_matches_nothing_is_reported(run, tmp_path):
    result = run("render", tmp_path / "none.jpg", "--out", tmp_path / "out", *MODEL)
    assert result.code == 1
    assert result.err.startswith(f"error: {tmp_path / 'none.jpg'}: ")


def test_without_out_it_writes_to_the_folder_out(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/mine.txt").write_text("kept")
    result = run("render", photos / "a.png", *MODEL)
    assert result.code == 0, result.err
    assert (tmp_path / "out" / "a.pca.png").is_file()
    assert Path("out/mine.txt").read_text() == "kept"
    shutil.rmtree("out")
    for command in ("render", "compare"):
        Path("out").write_text("a file, not a folder")
        result = run(command, photos / "a.png", *MODEL)
        assert (result.code, result.err) == (
            1,
            "error: cannot write --out 'out': it is a file, not a folder\n",
        )
        assert Path("out").read_text() == "a file, not a folder"


def test_an_output_that_cannot_be_written_is_reported(run, photos, tmp_path):
    (tmp_path / "out").write_text("a file, not a folder")
    result = run("render", photos, "--out", tmp_path / "out", *MODEL)
    assert result.code == 1
    assert result.err == f"error: cannot write --out '{tmp_path / 'out'}': it is a file, not a folder\n"
    assert (tmp_path / "out").read_text() == "a file, not a folder"


def test_without_weights_and_network_three_solutions_are_named(run, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("PATCHPRISM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("PATCHPRISM_DINOV2_URL", "http://127.0.0.1:9")
    result = run("render", photos, "--out", tmp_path / "out", "--model", "dinov2_vits14")
    assert result.code == 1
    assert result.err.count("\n") == 1
    for way in ("--weights", "patchprism download dinov2_vits14", "--model efficientnet_lite2"):
        assert way in result.err
    assert not (tmp_path / "out").exists()


def test_a_foreground_of_nearly_all_patches_gets_a_hint(run, tmp_path):
    """In both photos, nearly all patches are foreground, so the threshold separates no objects."""
    rng = np.random.default_rng(0)
    for name, texture in (
        ("noise", rng.integers(0, 256, (96, 96, 3))),
        ("plain", rng.integers(90, 94, (96, 96, 3))),
    ):
        Image.fromarray(texture.astype(np.uint8)).save(tmp_path / f"{name}.png")
    result = run(
        "render", tmp_path, "--out", tmp_path / "out", *MODEL, "--threshold", "0.02", "--foreground", "above"
    )
    assert result.code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert all(photo["foreground"] > 0.95 for photo in report["photos"])
    assert len(report["hints"]) == 1
    assert "hint    in 2 of 2 photos nearly all patches are foreground" in result.out
    # The report names parameters of the library, the terminal names flags.
    assert "or keep all patches with foreground='none'" in report["hints"][0]
    assert "with --foreground none" in " ".join(result.out.split())
    kept = run("render", tmp_path, "--out", tmp_path / "all", *MODEL, "--foreground", "none")
    assert "hint" not in kept.out


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names must be valid text there")
@pytest.mark.parametrize(
    "command",
    [
        ("render", "-o", "out"),
        ("render", "-o", "out", "--resume"),
        ("compare", "-o", "out", "--layer", "5,11"),
        ("explore", "--html", "out"),
    ],
)
def test_undecodable_names_are_no_error(run, photos, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (photos / "a.png").rename(photos / os.fsdecode(b"a\xff.png"))
    result = run(command[0], photos, *command[1:], *MODEL)
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "victim"),
    [
        (("render", "p/a.png", "p/results.png", "-o", "p"), "p/results.png"),
        (("render", "p/a.png", "p/results.png", "-o", "p/../p", "--resume"), "p/results.png"),
        (("render", "p/a.png", "p/a.pca.png", "-o", "p"), "p/a.pca.png"),
        (("render", "p/a.png", "p/a.pca.png", "-o", "p", "--resume"), "p/a.pca.png"),
        (("compare", "p/a.png", "p/compare.png", "-o", "p", "--layer", "5,11"), "p/compare.png"),
        (("fit", "p", "-o", "p/a.png"), "p/a.png"),
        (("explore", "p", "--html", "p/a.png"), "p/a.png"),
        (("features", "p", "-o", "f.zarr", "--flat", "p/a.png"), "p/a.png"),
    ],
)
def test_no_photo_of_the_job_is_overwritten(run, photos, tmp_path, monkeypatch, command, victim):
    monkeypatch.chdir(tmp_path)
    photos.rename("p")
    for name in ("results.png", "a.pca.png", "compare.png"):
        shutil.copy("p/a.png", f"p/{name}")
    before = {path: path.read_bytes() for path in Path("p").rglob("*.*g")}
    result = run(*command, *MODEL)
    named = f"{command[-2].replace('-o', '--out')} '{victim}'" if command[-1] == victim else victim
    assert (result.code, result.err) == (
        1,
        f"error: cannot write {named}: it is one of the photos of this job\n",
    )
    assert {path: path.read_bytes() for path in Path("p").rglob("*.*g")} == before


def test_an_internal_error_is_one_line(run, monkeypatch, photos, tmp_path):
    from patchprism.jobs import render

    def broken(*args, **kwargs):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(render, "open_tokens", broken)
    result = run("render", photos, "--out", tmp_path / "out")
    assert result.code == 70
    assert (
        result.err
        == "error: ZeroDivisionError: oops (a bug in PatchPrism; set PATCHPRISM_DEBUG=1 to see where)\n"
    )
    monkeypatch.setenv("PATCHPRISM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("render", photos, "--out", tmp_path / "out")


def test_ctrl_c_is_reported_and_leaves_nothing(run, monkeypatch, photos, tmp_path):
    from patchprism.features import extraction

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "_framed_ahead", interrupted)
    result = run("render", photos, "--out", tmp_path / "out", *MODEL)
    assert (result.code, result.err) == (130, "stopped\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [["--help"], ["render", "--help"], ["video", "--help-all"], ["models", "--help"], ["--version"]],
)
def test_help_loads_no_library_that_computes(command):
    program = (
        "import sys; from patchprism.cli import main\n"
        f"sys.argv = ['patchprism', *{command!r}]\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'numpy', 'PIL', 'torch', 'sklearn', 'scipy', 'matplotlib', 'fsspec'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_rendering_does_not_import_scikit_learn_or_matplotlib(photos, tmp_path):
    program = (
        "import sys; from patchprism.cli import main\n"
        f"sys.argv = ['patchprism', 'render', {str(photos / 'a.png')!r}, '-o', {str(tmp_path / 'out')!r}, "
        f"*{MODEL!r}, '-q']\n"
        "main()\n"
        "heavy = {'sklearn', 'scipy', 'matplotlib', 'transformers', 'skimage', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_mask_options_with_a_prism_work_the_same_for_many_photos(run, photos, tmp_path):
    """The job for many photos (here with --resume) and the one in memory show the same foreground."""
    assert run("render", photos, "--out", tmp_path / "fit", *MODEL, "--arrays", "-q").code == 0
    prism = tmp_path / "fit" / "prism.safetensors"
    options = ("--prism", prism, "--mask-threshold", "0.8", "--opening", "2", "--arrays", "-q")
    assert run("render", photos, "--out", tmp_path / "few", *options).code == 0
    assert run("render", photos, "--out", tmp_path / "many", *options, "--resume").code == 0
    for name in ("a.npz", "b.npz", "a-2.npz"):
        few, many, fitted = (np.load(tmp_path / folder / name) for folder in ("few", "many", "fit"))
        np.testing.assert_array_equal(few["foreground"], many["foreground"])
        assert few["foreground"].sum() != fitted["foreground"].sum()
