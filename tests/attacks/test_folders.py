"""Folders made by others: links instead of work folders, and records that claim the user's files."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
from roads import extract_features, fit_prism, render_photos

from patchprism.errors import OutputError, PatchPrismError
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.jobs.working import working
from patchprism.photos.paths import find_photos
from patchprism.support.folders import MARKER, MARKER_TEXT, WORK, LocalFolder
from patchprism.support.written import RECORD, Output, Record


def precious(folder):
    """A user's folder with all the file names of a work folder."""
    for name in ("tmp/thesis", "shards/00000000.json", "drawn/0", "lock", "batch.json", "job.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    return folder


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hold(work):
    with working(LocalFolder(work, work=work), "out"):
        pass


@pytest.mark.parametrize("marked", [False, True])
def test_a_link_instead_of_a_work_folder_is_refused(tmp_path, marked):
    theirs = precious(tmp_path / "theirs")
    if marked:
        (theirs / MARKER).write_bytes(MARKER_TEXT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / WORK).symlink_to(theirs)
    before = tree(theirs)
    with pytest.raises(OutputError, match="it is a link or a file"):
        hold(tmp_path / "out" / WORK)
    assert tree(theirs) == before


@pytest.mark.parametrize("name", ["tmp", "shards", "drawn", "lock", "batch.json", "job.json", MARKER])
def test_links_in_a_work_folder_are_refused(tmp_path, name):
    theirs = precious(tmp_path / "theirs")
    (theirs / MARKER).write_bytes(MARKER_TEXT)
    work = tmp_path / "out" / WORK
    work.mkdir(parents=True)
    if name != MARKER:
        (work / MARKER).write_bytes(MARKER_TEXT)
    (work / name).symlink_to(theirs / name)
    before = tree(theirs)
    with pytest.raises(OutputError, match=r"link|did not make"):
        hold(work)
    assert tree(theirs) == before


def test_a_foreign_folder_of_that_name(tmp_path):
    work = precious(tmp_path / "out" / WORK)
    before = tree(work)
    with pytest.raises(OutputError, match="did not make the folder that is there"):
        hold(work)
    assert tree(work) == before


@pytest.mark.parametrize("command", ["render", "fit", "features"])
def test_no_job_follows_a_link(tmp_path, photo, command):
    """The link is refused before the model is looked for, and its target is not changed."""
    from PIL import Image

    (tmp_path / "p").mkdir()
    Image.fromarray(photo).save(tmp_path / "p/a.png")
    theirs = precious(tmp_path / "theirs")
    out = tmp_path / "out"
    link = tmp_path / f".out{WORK}" if command == "fit" else out / WORK
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(theirs)
    before = tree(theirs)
    job = {"render": render_photos, "fit": fit_prism, "features": extract_features}[command]
    with open_engine("local") as engine, pytest.raises(PatchPrismError, match="it is a link"):
        job([tmp_path / "p"], out, settings=Settings(model="efficientnet_lite2", size=64), engine=engine)
    assert tree(theirs) == before
    assert link.is_symlink()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folders", "zarr", "link"])
def test_a_store_replaces_nothing_of_the_users(tmp_path, photo, kind, overwrite):
    from PIL import Image

    (tmp_path / "p").mkdir()
    Image.fromarray(photo).save(tmp_path / "p/a.png")
    out = tmp_path / "out"
    for name in ("names", "tokens"):
        (tmp_path / kind / name).mkdir(parents=True)
        (tmp_path / kind / name / "thesis").write_text("precious")
    if kind == "zarr":
        (tmp_path / kind / "zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
        )
    if kind == "link":
        out.mkdir()
        for name in ("names", "tokens"):
            (out / name).symlink_to(tmp_path / kind / name)
    else:
        (tmp_path / kind).rename(out)
    before = tree(tmp_path)
    settings = Settings(model="efficientnet_lite2", size=64)
    with open_engine("local") as engine, pytest.raises(PatchPrismError):
        extract_features([tmp_path / "p"], out, settings=settings, engine=engine, overwrite=overwrite)
    assert tree(tmp_path) == before


HOSTILE = {
    "not JSON": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "no version": '{"patchprism": "1", "files": {"a.png": null}}',
    "another tool": '{"version": 1, "files": {"a.png": {"bytes": 1, "sha256": ""}}}',
    "files is a list": '{"version": 1, "patchprism": "1", "files": ["a.png"], "writing": {"a.png": 1}}',
    "odd stamps": '{"version": 1, "patchprism": "1", "files": {"a.png": {"bytes": true, "sha256": 7}, "../a.png": 3}}',
    "infinite": '{"version": 1, "patchprism": "1", "files": {"a.png": {"bytes": Infinity, "sha256": ""}}}',
    "another content": '{"version": 1, "patchprism": "1", "files": {"a.png": {"bytes": 8, "sha256": "%s"}}}'
    % ("0" * 64),
    "no content": '{"version": 1, "patchprism": "1", "files": {"a.png": {"bytes": 8, "sha256": ""}}}',
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", ["report.json", "compare.json", RECORD])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_foreign_record_hides_and_removes_nothing(tmp_path, name, kind):
    photo = tmp_path / "a.png"
    photo.write_bytes(b"precious")
    said = HOSTILE[kind]
    (tmp_path / name).write_bytes(said if isinstance(said, bytes) else said.encode())
    os.utime(photo, ns=(0, 0))
    assert find_photos([tmp_path]) == [photo]
    with pytest.raises(OutputError, match=r"a\.png: it exists already"):
        Output(tmp_path).claim(["a.png"])
    assert photo.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["report.json", RECORD])
def test_records_that_are_not_regular_files(tmp_path, name):
    (tmp_path / "a.png").write_bytes(b"precious")
    os.mkfifo(tmp_path / name)  # reading a pipe would wait forever
    assert find_photos([tmp_path]) == [tmp_path / "a.png"]


def test_names_of_other_folders_are_never_ours(tmp_path):
    (tmp_path / "in").mkdir()
    content = b"precious"
    (tmp_path / "a.png").write_bytes(content)
    made = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    names = ["../a.png", str(tmp_path / "a.png"), "..", "", "in/../../a.png"]
    said = {"version": 1, "patchprism": "1", "files": dict.fromkeys(names, made), "writing": names}
    (tmp_path / "in" / RECORD).write_text(json.dumps(said))
    record = Record(LocalFolder(tmp_path / "in"))
    assert not record.files
    assert not record.writing


def test_a_killed_job_owns_only_the_files_in_its_journal(tmp_path):
    output = Output(tmp_path)
    output.claim(["a.png", "b.png"])
    with output.staged("a.png") as part:
        part.write_bytes(b"ours")
    old = tmp_path / "b.png"
    old.write_bytes(b"moved here by the user")
    os.utime(old, ns=(10**18, 10**18))
    assert find_photos([tmp_path]) == [old]
    Output(tmp_path).check(["a.png"])
    with pytest.raises(OutputError):
        Output(tmp_path).check(["b.png"])


def test_the_record_is_written_before_the_files(tmp_path):
    output = Output(tmp_path / "new")
    output.claim(["a.png"])
    assert json.loads((tmp_path / "new" / RECORD).read_text())["writing"] == ["a.png"]
    with output.staged("a.png") as part:
        np.save(part.with_suffix(".npy"), np.zeros(1))
        os.replace(part.with_suffix(".npy"), part)
    output.finish()
    assert list(json.loads((tmp_path / "new" / RECORD).read_text())["files"]) == ["a.png"]
