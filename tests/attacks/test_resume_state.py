"""Changes between an interrupted run and its resumption: options, photos, pictures and work folders."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image
from roads import extract_features, fit_prism, render_photos
from toys import Toy, make_photos, tree

import patchprism.features.extraction
import patchprism.features.store.layout
import patchprism.jobs.extraction
import patchprism.jobs.opened
import patchprism.jobs.pictures
import patchprism.jobs.shards
import patchprism.jobs.store_writer
import patchprism.jobs.tasks
import patchprism.jobs.working
import patchprism.photos.sources
from patchprism import visualize
from patchprism.errors import OutputError, PhotoError
from patchprism.jobs import drawing, extraction, fitting, opened, source, tasks
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.jobs.source import digest
from patchprism.photos.sources import read_source
from patchprism.pictures.options import PictureOptions
from patchprism.prism.estimator import Prism
from patchprism.support.folders import MARKER, MARKER_TEXT, WORK, LocalFolder

SETTINGS = Settings(model="toy", size=16, threshold=0.5)
SHARD, COUNT = 4, 10
WITH_SHARDS = (drawing, extraction, fitting, opened, source, tasks)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of four photos and chunks of sixteen patches, so that few photos are enough."""
    for module in WITH_SHARDS:
        monkeypatch.setattr(module, "SHARD", SHARD)
    monkeypatch.setattr(patchprism.features.store.layout, "CHUNK_BYTES", 16 * 24 * 2)
    monkeypatch.setattr(patchprism.jobs.store_writer, "CHUNKS_AT_ONCE", 1)
    for module in (
        patchprism.jobs.tasks,
        patchprism.jobs.opened,
        patchprism.jobs.pictures,
    ):
        monkeypatch.setattr(
            module, "give_back_memory", lambda: None
        )  # it takes most of the time of so small jobs


def small(folder, count=COUNT):
    return make_photos(folder, count, shapes=((16, 24), (24, 16), (16, 16)))


@pytest.fixture
def photos(tmp_path):
    return small(tmp_path / "photos")


def do(command, photos, out, **options):
    """Run one of the commands in this process; a reader that cannot be pickled is used here."""
    with open_engine() as engine:
        options = {"settings": SETTINGS, "reader": lambda name: read_source(name), **options}
        options = {"engine": engine, "backbone": Toy(), **options}
        if command == "render":
            options = {"dpi": 36, **options}  # large figures would take most of the time of such small jobs
        return {"features": extract_features, "fit": fit_prism, "render": render_photos}[command](
            photos if isinstance(photos, list) else [photos], out, **options
        )


def broken_off(photos, out, at=SHARD + 2, **options):
    """Interrupt a render while it writes pictures, after those of the first shard."""

    def stop(stage, done, total):
        if stage == "pictures" and done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do("render", photos, out, tell=stop, **options)
    return out


# ---------------------------------------------------------------- other options

# Settings that the toy network does not have; only their keys are tested
UNTRIED = {
    "model": "another",
    "weights": "another",
    "device": "cpu",
    "dtype": "bfloat16",
    "layer": 3,
    "facet": "key",
    "stride": 4,
}
# The changed value of each setting; None if the toy network does not have it.
OTHER_SETTINGS = {
    "model": None,
    "weights": None,
    "device": None,
    "dtype": None,
    "layer": None,
    "facet": None,
    "preset": "seed",
    "range": (0.0, 200.0),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.7, 0.8, 0.9),
    "size": 24,
    "stride": None,
    "tile": 32,
    "refine": 2,
    "threshold": 0.3,
    "foreground": "below",
    "foreground_component": 2,
    "scaling": "percentile",
    "components": (2, -3, 1),
    "space": "oklab",
    "mask_threshold": 0.2,
    "mask_side": "none",
    "opening": 1,
    "closing": 1,
    "final_norm": False,
    "token_norm": "l2",
    "batch_size": 3,
}
# Other settings that a setting needs.
BESIDES = {"foreground_component": {"foreground": "pca"}}
OTHER_PICTURES = {
    "overlay_alpha": 0.9,
    "arrays": False,
    "format": "jpg",
    "upsample": "guided",
    "background": "photo",
    "basis": "all",
    "masks": ("png", "coco"),
    "instances": True,
    "outline": True,
    "pca": False,
    "figure_format": "pdf",
    "dpi": 72,
    "width": "3in",
    "columns": 1,
    "labels": ("none",),
    "arrange": "above",
    "panels": "square",
}
PICTURES = {"overlay_alpha": 0.5, "arrays": True}


def test_no_option_is_forgotten_here():
    assert set(OTHER_SETTINGS) == {field.name for field in fields(Settings)}
    assert set(OTHER_PICTURES) == {field.name for field in fields(PictureOptions)}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_every_setting_is_in_a_key(name):
    """Settings of the prism are in the key of the prism, all others in that of the tokens."""
    value = OTHER_SETTINGS[name]
    base = replace(SETTINGS, **BESIDES.get(name, {})).resolved()
    other = replace(base, **{name: UNTRIED[name] if value is None else value})

    def key(settings):
        return digest(settings.for_tokens(), vars(settings.prism()))

    assert key(other) != key(base)
    if name not in vars(Prism()):
        assert digest(other.for_tokens()) != digest(base.for_tokens())
    else:
        assert digest(vars(other.prism())) != digest(vars(base.prism()))


CHANGES = [
    {name: value} | BESIDES.get(name, {}) for name, value in OTHER_SETTINGS.items() if value is not None
]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Photos and an interrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        for module in WITH_SHARDS:
            patch.setattr(module, "SHARD", SHARD)
        folder = small(tmp_path_factory.mktemp("photos") / "p")
        return folder, broken_off(folder, tmp_path_factory.mktemp("broken") / "out", **PICTURES)


def check_same(photos, broken, tmp_path, **options):
    """A run that is resumed with other options gives the same files as a new run."""
    shutil.copytree(broken, tmp_path / "resumed", copy_function=shutil.copy2)
    do("render", photos, tmp_path / "resumed", **options)
    do("render", photos, tmp_path / "fresh", **options)
    assert tree(tmp_path / "resumed") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_other_settings(interrupted, tmp_path, change):
    check_same(*interrupted, tmp_path, settings=replace(SETTINGS, **change), **PICTURES)


@pytest.mark.parametrize("name", OTHER_PICTURES)
def test_other_pictures(interrupted, tmp_path, name):
    check_same(*interrupted, tmp_path, **PICTURES | {name: OTHER_PICTURES[name]})


def test_dropped_options_and_a_sample(interrupted, tmp_path):
    check_same(*interrupted, tmp_path, sample=6, seed=3)


def test_a_prism_that_is_given(interrupted, tmp_path):
    photos, broken = interrupted
    do("fit", photos, tmp_path / "p.prism", settings=replace(SETTINGS, threshold=0.3))
    prism = Prism.load(tmp_path / "p.prism")
    check_same(photos, broken, tmp_path, prism=prism, settings=Settings(model="toy", size=16), **PICTURES)


@pytest.mark.parametrize("change", ["removed", "added", "renamed", "cut"])
def test_other_photos(photos, tmp_path, change):
    broken = broken_off(photos, tmp_path / "out", **PICTURES)
    if change == "removed":
        (photos / "p0001.png").unlink()
    elif change == "added":
        shutil.copy(photos / "p0003.png", photos / "p0000b.png")
    elif change == "renamed":
        (photos / "p0001.png").rename(photos / "p0001x.png")
    else:
        for n in range(3, COUNT):
            (photos / f"p{n:04d}.png").unlink()
    check_same(photos, broken, tmp_path, **PICTURES)


def test_a_photo_with_the_size_and_time_of_another(photos, tmp_path):
    """An attacker or a restored backup can set both."""
    for n in range(COUNT):
        Image.open(photos / f"p{n:04d}.png").save(photos / f"p{n:04d}.bmp")
        (photos / f"p{n:04d}.png").unlink()
        os.utime(photos / f"p{n:04d}.bmp", (1e9, 1e9))
    broken = broken_off(photos, tmp_path / "out", **PICTURES)
    first, other = photos / "p0000.bmp", photos / "p0003.bmp"
    one, two = first.read_bytes(), other.read_bytes()
    assert len(one) == len(two)
    first.write_bytes(two)
    other.write_bytes(one)
    for path in (first, other):
        os.utime(path, (1e9, 1e9))
    check_same(photos, broken, tmp_path, **PICTURES)


# ---------------------------------------------------------------- other files in the output folder


def shorten(path):
    path.write_bytes(path.read_bytes()[:40])


def paint_over(path):
    """A file of the same size."""
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize("name", ["p0001.pca.png", "p0002.overlay.png", "p0000.npz"])
def test_missing_pictures_are_drawn_again(photos, tmp_path, name):
    out = broken_off(photos, tmp_path / "out", **PICTURES)
    (out / name).unlink()
    do("render", photos, out, **PICTURES)
    do("render", photos, tmp_path / "fresh", **PICTURES)
    assert tree(out) == tree(tmp_path / "fresh")
    for row in json.loads((out / "report.json").read_text())["photos"]:
        assert all((out / file).exists() for file in row["files"])


@pytest.mark.parametrize("harm", [shorten, paint_over])
@pytest.mark.parametrize("name", ["p0001.pca.png", "p0000.npz", "results.png"])
def test_files_that_a_user_wrote_after_a_run_was_killed_are_not_replaced(photos, tmp_path, harm, name):
    """A picture that was edited, and a file with a name that the run was about to write."""
    out = broken_off(photos, tmp_path / "out", **PICTURES)
    if name == "results.png":
        (out / name).write_bytes(b"a file of the user's, longer than forty bytes" * 2)
    harm(out / name)
    content = (out / name).read_bytes()
    with pytest.raises(OutputError, match="PatchPrism did not write it"):
        do("render", photos, out, **PICTURES)
    assert (out / name).read_bytes() == content
    # After the user's file is moved away, the run can be resumed.
    (out / name).rename(tmp_path / "moved")
    do("render", photos, out, **PICTURES)
    do("render", photos, tmp_path / "fresh", **PICTURES)
    assert tree(out) == tree(tmp_path / "fresh")


def test_existing_pictures_are_not_drawn_again(photos, tmp_path):
    out = broken_off(photos, tmp_path / "out")
    before = (out / "p0001.pca.png").stat().st_ino
    do("render", photos, out)
    assert (out / "p0001.pca.png").stat().st_ino == before


def test_a_foreign_record_removes_nothing(photos, tmp_path):
    """The record of a work folder removes only files in the folder itself that look like pictures of PatchPrism."""
    out = broken_off(photos, tmp_path / "out")
    (tmp_path / "x.pca.png").write_text("mine")
    (out / "thesis.docx").write_text("mine")
    (out / WORK / "drawn" / "00000007.json").write_text(
        json.dumps({"files": ["../x.pca.png", "thesis.docx", f"{tmp_path}/x.pca.png", "."]})
    )
    do("render", photos, out)
    assert (tmp_path / "x.pca.png").exists()
    assert (out / "thesis.docx").exists()


# ---------------------------------------------------------------- features


def features_broken_off(photos, out, reads):
    read = []

    def reader(name):
        read.append(name)
        if len(read) > reads:
            raise KeyboardInterrupt
        return read_source(name)

    with pytest.raises(KeyboardInterrupt):
        do("features", photos, out, reader=reader)


def touch(photos):
    """Change the time of one photo of the middle shard."""
    os.utime(photos / "p0013.png", (1, 1))
    return 13


def turn(photos):
    """Give it more patches, so that all rows after it move."""
    Image.fromarray(np.full((16, 40, 3), 90, np.uint8)).save(photos / "p0013.png")
    return 13


def spoil(photos):
    """Make it unreadable."""
    (photos / "p0013.png").write_bytes(b"no photo")
    return 13


def first(photos):
    os.utime(photos / "p0000.png", (1, 1))
    return 0


@pytest.mark.parametrize("change", [touch, turn, spoil, first])
def test_features_are_computed_again_only_for_the_shard_of_a_touched_photo(tmp_path, change):
    photos = small(tmp_path / "photos", 50)
    out = tmp_path / "out"
    features_broken_off(photos, out, 41)
    tables = sorted((out / WORK / "shards").glob("*.json"))
    tokens = sorted((out / WORK / "shards").glob("*.tokens"))
    assert len(tokens) < len(tables) >= 5, "some shards have given up their tokens"
    known = {row["name"] for path in tables for row in json.loads(path.read_text())["photos"]}
    place = change(photos)
    own = {str(photos / f"p{n:04d}.png") for n in range(place - place % SHARD, place - place % SHARD + SHARD)}
    read = []
    do("features", photos, out, reader=lambda name: (read.append(name), read_source(name))[1])
    assert not (known - own) & set(read)
    assert own <= set(read)
    do("features", photos, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


@pytest.mark.parametrize("change", ["first removed", "one added", "cut", "more"])
def test_features_of_other_photos(tmp_path, change):
    photos = small(tmp_path / "photos", 50)
    names = [str(path) for path in sorted(photos.iterdir())]
    start = names[:40] if change == "more" else names
    features_broken_off(start, tmp_path / "out", 38)
    after = {
        "first removed": names[1:],
        "one added": [*names[:20], names[-1], *names[20:-1]],
        "cut": names[:17],
        "more": names,
    }[change]
    do("features", after, tmp_path / "out")
    do("features", after, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_features_after_two_changes_and_two_breaks(tmp_path):
    photos = small(tmp_path / "photos", 50)
    out = tmp_path / "out"
    features_broken_off(photos, out, 45)
    turn(photos)
    features_broken_off(photos, out, 2)
    first(photos)
    features_broken_off(photos, out, 5)
    do("features", photos, out)
    do("features", photos, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


def test_a_missing_chunk_is_written_again(tmp_path):
    photos = small(tmp_path / "photos", 50)
    out = tmp_path / "out"
    features_broken_off(photos, out, 45)
    (out / "tokens" / "c" / "2" / "0").unlink()
    do("features", photos, out)
    do("features", photos, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


def test_a_finished_store_is_recognised_after_a_copy(tmp_path):
    """A copy has another change time (ctime), which cannot be set, but it is the same photo."""
    photos = small(tmp_path / "photos")
    do("features", photos, tmp_path / "out")
    shutil.move(photos, tmp_path / "away")
    shutil.copytree(tmp_path / "away", photos, copy_function=shutil.copy2)
    assert do("features", photos, tmp_path / "out").already


# ---------------------------------------------------------------- photos in the middle of a run


def vanish(path):
    path.unlink()


def truncate(path):
    os.truncate(path, 60)


def grow(path):
    Image.fromarray(np.full((48, 40, 3), 90, np.uint8)).save(path)


def exchange(path):
    """Another photo of the same size."""
    with Image.open(path) as image:
        turned = np.asarray(image)[::-1]
    Image.fromarray(turned).save(path)


MIDDLE = [vanish, truncate, grow, exchange]


@pytest.mark.parametrize("change", MIDDLE)
@pytest.mark.parametrize(
    "options", [{"overlay_alpha": 0.5}, {"background": "photo"}, {"upsample": "guided"}, {}], ids=str
)
def test_a_photo_is_missing_when_pictures_are_drawn(photos, tmp_path, change, options):
    victim = photos / "p0005.png"
    before = do("render", photos, tmp_path / "whole", **options)

    def tell(stage, done, total):
        if stage == "pictures" and not done:
            change(victim)

    outcome = do("render", photos, tmp_path / "out", tell=tell, **options)
    assert [each.photo for each in outcome.failures] == [str(victim)]
    assert "drawn without it" in outcome.failures[0].reason
    assert outcome.n_photos == before.n_photos == COUNT
    out, whole = tree(tmp_path / "out"), tree(tmp_path / "whole")
    report = json.loads(out.pop("report.json"))
    assert [each["photo"] for each in report["failures"]] == [str(victim)]
    (row,) = (row for row in report["photos"] if row["photo"] == str(victim))
    assert all((tmp_path / "out" / file).exists() for file in row["files"])
    assert "p0005.pca.png" in row["files"]
    assert not any("overlay" in file for file in row["files"])
    assert row.get("photo_missing", False) == bool(options)
    others = [name for name in whole if name.startswith("p0") and "p0005" not in name]
    assert {name: out[name] for name in others} == {name: whole[name] for name in others}
    assert not (tmp_path / "out" / WORK).exists()


def test_a_resumed_run_draws_with_a_photo_that_is_back(photos, tmp_path):
    victim, kept = photos / "p0001.png", tmp_path / "kept.png"

    def tell(stage, done, total):
        if stage == "pictures" and not done:
            os.link(victim, kept)
            victim.unlink()
        elif stage == "pictures" and done > SHARD:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do("render", photos, tmp_path / "out", tell=tell, **PICTURES)
    assert not (tmp_path / "out" / "p0001.overlay.png").exists()
    kept.rename(victim)
    do("render", photos, tmp_path / "out", **PICTURES)
    do("render", photos, tmp_path / "fresh", **PICTURES)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("change", MIDDLE)
@pytest.mark.parametrize(
    "options", [{"overlay_alpha": 0.5}, {"background": "photo"}, {"upsample": "guided"}], ids=str
)
def test_a_missing_photo_in_memory(photos, tmp_path, monkeypatch, change, options):
    monkeypatch.setattr(patchprism.features.extraction, "KEPT_BYTES", 0)
    view = visualize(
        [photos], backbone=Toy(), **{name: getattr(SETTINGS, name) for name in ("size", "threshold")}
    )
    victim = photos / "p0005.png"
    change(victim)
    written = view.save(tmp_path / "out", **options)
    assert all(path.exists() for path in written)
    assert [each.photo for each in view.failures] == [str(victim)]
    assert view.gone == [str(victim)]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [each["photo"] for each in report["failures"]] == [str(victim)]
    assert not (tmp_path / "out" / "p0005.overlay.png").exists()
    assert (tmp_path / "out" / "p0005.pca.png").exists()
    view.save(tmp_path / "again", **options)
    assert len(view.failures) == 1


def test_a_missing_photo_in_lenses_and_the_page(photos, tmp_path, monkeypatch):
    from patchprism.lenses.looking import look_through
    from patchprism.lenses.options import LensOptions

    monkeypatch.setattr(patchprism.features.extraction, "KEPT_BYTES", 0)
    view = visualize([photos], backbone=Toy(), size=16, threshold=0.5)
    vanish(photos / "p0005.png")
    found = look_through(view, ["norm", "clusters"], LensOptions(upsample="guided"), backbone=None)
    view.save(tmp_path / "out", lenses=found)
    assert [each.photo for each in view.failures] == [str(photos / "p0005.png")]
    view.explore().save(tmp_path / "page.html")


def test_a_missing_photo_in_a_comparison(photos, tmp_path, monkeypatch):
    from patchprism.lenses.comparison import compare
    from patchprism.lenses.comparison_figures import save_comparison

    monkeypatch.setattr(patchprism.features.extraction, "KEPT_BYTES", 0)
    passes = []

    def between(stage, done, total):
        if stage == "photos":
            passes.append(done)
            if len(passes) == 1:
                vanish(photos / "p0002.png")

    found = compare(
        [photos], models=[Toy(), Toy()], size=16, threshold=0.5, errors="report", progress=between
    )
    vanish(photos / "p0005.png")
    save_comparison(found, tmp_path / "out")
    assert [os.path.basename(each.photo) for each in found.failures] == ["p0002.png", "p0005.png"]
    assert len(found.cells[0].parts) == COUNT - 1


def test_an_array_that_is_overwritten_is_another_photo(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(patchprism.features.extraction, "KEPT_BYTES", 0)
    arrays = [np.asarray(Image.open(path)).copy() for path in sorted(photos.iterdir())]
    view = visualize(arrays, backbone=Toy(), size=16, threshold=0.5)
    arrays[1][:] = 0
    view.save(tmp_path / "out", overlay_alpha=0.5)
    assert [each.photo for each in view.failures] == ["photo-2"]


def test_a_photo_error_does_not_remove_the_work_folder(photos, tmp_path):
    """A PhotoError while pictures are drawn does not mean that there is nothing to resume."""

    def tell(stage, done, total):
        if stage == "pictures":
            raise PhotoError("p", "whatever")

    with pytest.raises(PhotoError, match="whatever"):
        do("render", photos, tmp_path / "out", tell=tell)
    assert len(list((tmp_path / "out" / WORK / "shards").glob("*.tokens"))) == 3


# ---------------------------------------------------------------- one job ends while another starts


def test_a_job_that_starts_while_another_ends_waits_for_it(photos, tmp_path, monkeypatch):
    ending, go_on = threading.Event(), threading.Event()
    real = LocalFolder.remove

    def remove(self, key):
        if key == "" and threading.current_thread().name == "first":
            ending.set()
            assert go_on.wait(60)
        real(self, key)

    monkeypatch.setattr(LocalFolder, "remove", remove)
    out = tmp_path / "d.prism"
    failed, at_work, finish = [], threading.Event(), threading.Event()

    def run(**options):
        try:
            do("fit", photos, out, **options)
        except BaseException as error:
            failed.append(error)

    def hold(stage, done, total):
        if not at_work.is_set():
            at_work.set()
            assert finish.wait(60)

    first = threading.Thread(target=run, name="first")
    second = threading.Thread(target=run, kwargs={"tell": hold})
    first.start()
    assert ending.wait(60)
    second.start()
    assert not at_work.wait(0.2), "the first one still takes its work away"
    go_on.set()
    first.join()
    assert at_work.wait(60)
    with pytest.raises(OutputError, match="another patchprism process is working on it"):
        do("fit", photos, out)
    finish.set()
    second.join()
    assert not failed
    assert Prism.load(out).n_photos_ == COUNT
    assert sorted(each.name for each in tmp_path.iterdir()) == ["d.prism", "photos"]


def test_a_job_that_was_killed_at_its_end_leaves_nothing(photos, tmp_path):
    work = tmp_path / f".d.prism{WORK}"
    (work / "shards").mkdir(parents=True)
    (work / MARKER).write_bytes(MARKER_TEXT)
    (work / "ending").touch()
    (work / MARKER).write_bytes(MARKER_TEXT)
    (work / "shards" / "00000000.json").write_text("{")
    do("fit", photos, tmp_path / "d.prism")
    assert not work.exists()


def test_a_folder_that_cannot_be_locked_is_not_reported_as_in_use(photos, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(patchprism.jobs.working.fcntl, "flock", refuse)
    with pytest.raises(OutputError, match="cannot be locked: no locks available"):
        do("fit", photos, tmp_path / "d.prism")


# ---------------------------------------------------------------- photos that can be read once


def piped(content):
    """The name of a pipe that delivers the content and then ends."""
    out, into = os.pipe()
    threading.Thread(target=lambda: (os.write(into, content), os.close(into))).start()
    return out, f"/dev/fd/{out}"


@pytest.mark.parametrize("command", ["features", "fit", "render"])
def test_a_pipe_is_read_once(photos, tmp_path, command):
    """It is read by the process that has the pipe, not by readers, although a render reads its photos twice."""
    if not os.path.exists("/dev/fd/0"):
        pytest.skip("this system has no /dev/fd")
    handle, name = piped((photos / "p0000.png").read_bytes())
    options = {"overlay_alpha": 0.5} if command == "render" else {}
    try:
        outcome = do(
            command, [name, str(photos / "p0001.png")], tmp_path / "out", reader=read_source, **options
        )
    finally:
        os.close(handle)
        patchprism.photos.sources._piped.clear()
    assert outcome.n_photos == 2
    assert not outcome.failures


def test_a_pipe_in_memory(photos, tmp_path, monkeypatch):
    if not os.path.exists("/dev/fd/0"):
        pytest.skip("this system has no /dev/fd")
    monkeypatch.setattr(patchprism.features.extraction, "KEPT_BYTES", 0)
    handle, name = piped((photos / "p0000.png").read_bytes())
    try:
        view = visualize([name, photos / "p0001.png"], backbone=Toy(), size=16, threshold=0.5)
        view.save(tmp_path / "out", overlay_alpha=0.5)
    finally:
        os.close(handle)
        patchprism.photos.sources._piped.clear()
    assert not view.failures


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_devices_are_not_photos(photos, tmp_path, name):
    if not os.path.exists(name):
        pytest.skip(f"this system has no {name}")
    outcome = do("fit", [name, str(photos)], tmp_path / "d.prism", reader=read_source)
    assert [(each.photo, each.reason) for each in outcome.failures] == [(name, "is a device, not a file")]


def test_a_named_pipe_is_refused(photos, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    outcome = do("fit", [str(tmp_path / "pipe.png"), str(photos)], tmp_path / "d.prism", reader=read_source)
    assert [each.reason for each in outcome.failures] == ["is a pipe, not a file"]
