"""Interrupted jobs resume where they stopped; real processes are killed at random moments."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time

import pytest
from roads import extract_features, fit_prism, render_photos
from toys import Toy, make_photos, tree

import patchprism.support.folders
from patchprism.errors import OutputError
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.jobs.source import SHARD
from patchprism.photos.sources import read_source

SETTINGS = Settings(model="toy", size=48)


def do(command, photos, out, **options):
    """Run one of the commands in this process."""
    with open_engine() as engine:
        options = {"settings": SETTINGS, "engine": engine, "backbone": Toy(), **options}
        if command == "features":
            return extract_features([photos], out, **options)
        if command == "fit":
            return fit_prism([photos], out, **options)
        return render_photos([photos], out, overlay_alpha=0.5, arrays=True, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four shards of photos, one bad."""
    folder = make_photos(tmp_path_factory.mktemp("photos") / "p", 3 * SHARD + 9)
    (folder / "p0100.png").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(photos, tmp_path_factory):
    """The files of the commands without interruption, and the seconds that they take."""
    made = {}
    for command in ("features", "fit", "render"):
        out = tmp_path_factory.mktemp(command) / "out"
        start = time.monotonic()
        do(command, photos, out)
        made[command] = tree(out.parent), time.monotonic() - start
    return made


def killed_after(seconds, command, photos, out):
    """Whether the command was still running when it was killed."""
    child = os.fork()
    if not child:
        try:
            do(command, photos, out)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def check_kills(command, kills, photos, uninterrupted, tmp_path, seed):
    expected, seconds = uninterrupted[command]
    draw = random.Random(seed)
    met = 0
    for round_ in range(3 * kills):
        out = tmp_path / str(round_) / "out"
        out.parent.mkdir()
        # The run is killed up to three times, at random moments.
        while met < kills and killed_after(draw.uniform(0.02, 0.8) * seconds, command, photos, out):
            met += 1
            assert not (out / "report.json").exists() or (out / patchprism.support.folders.WORK).exists()
        do(command, photos, out)
        assert tree(out.parent) == expected
        if met >= kills:
            return
    pytest.fail(f"only {met} of {kills} runs were met at work")


@pytest.mark.parametrize("command", ["features", "render"])
def test_killed_twice(command, photos, uninterrupted, tmp_path):
    check_kills(command, 2, photos, uninterrupted, tmp_path, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "kills"), [("features", 10), ("render", 12), ("fit", 4)])
def test_killed_at_many_moments(command, kills, photos, uninterrupted, tmp_path):
    check_kills(command, kills, photos, uninterrupted, tmp_path, seed=2)


class Full(OSError):
    """The disk is full."""

    def __init__(self):
        super().__init__(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("command", ["features", "fit", "render"])
def test_full_disk(command, photos, uninterrupted, tmp_path, monkeypatch):
    """After some point, every write fails; once there is room again, the same command gives the usual files."""
    replace = os.replace
    for room in (3, 40):
        out = tmp_path / str(room) / "out"
        out.parent.mkdir()
        left = [room]

        def refuse(source, target, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Full
            replace(source, target)

        monkeypatch.setattr(os, "replace", refuse)
        try:
            do(command, photos, out)
        except OutputError as error:
            assert "no space left on device" in str(error)  # noqa: PT017 - small jobs may have enough room
        monkeypatch.setattr(os, "replace", replace)
        do(command, photos, out)
        assert tree(out.parent) == uninterrupted[command][0]


def test_no_photo_is_read_twice(photos, uninterrupted, tmp_path):
    """After Ctrl-C, the shards that were committed are not read again."""
    read = []

    def reader(name):
        read.append(name)
        if len(read) == 2 * SHARD + 20:
            raise KeyboardInterrupt
        return read_source(name)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        do("features", photos, out, reader=reader)
    first = set(read)
    committed = {
        row["name"]
        for path in (out / patchprism.support.folders.WORK / "shards").glob("*.json")
        for row in json.loads(path.read_text())["photos"]
    }
    assert len(committed) >= SHARD
    assert committed <= first
    read.clear()
    do("features", photos, out, reader=lambda name: (read.append(name), read_source(name))[1])
    assert len(read) == len(set(read))
    assert not committed & set(read)
    assert tree(out.parent) == uninterrupted["features"][0]


def test_a_photo_that_has_changed_is_read_again(photos, tmp_path):
    copy = make_photos(tmp_path / "p", SHARD + 10)
    read = []

    def reader(name):
        read.append(name)
        if len(read) > SHARD + 8:
            raise KeyboardInterrupt
        return read_source(name)

    with pytest.raises(KeyboardInterrupt):
        do("features", copy, tmp_path / "f.zarr", reader=reader)
    (copy / "p0003.png").write_bytes((copy / "p0001.png").read_bytes())
    do("features", copy, tmp_path / "f.zarr")
    do("features", copy, tmp_path / "g.zarr")
    assert tree(tmp_path / "f.zarr") == tree(tmp_path / "g.zarr")


def test_tokens_are_kept_for_another_threshold(photos, tmp_path):
    """An interrupted render that is resumed with other colours does not run the network again."""
    out = tmp_path / "out"
    done = []

    def stop(stage, count, total):
        done.append(stage)
        if stage == "pictures":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do("render", photos, out, tell=stop)
    read = []
    settings = Settings(model="toy", size=48, threshold=0.6)
    do(
        "render",
        photos,
        out,
        settings=settings,
        reader=lambda name: (read.append(name), read_source(name))[1],
    )
    assert "p0100.png" not in {
        os.path.basename(name) for name in read
    }  # the bad photo, which is known from the table
    assert json.loads((out / "report.json").read_text())["prism"]["threshold"] == 0.6


@pytest.mark.parametrize(("command", "name"), [("features", "f.zarr"), ("fit", "d.prism"), ("render", "o")])
def test_two_runs_at_once_are_refused(photos, tmp_path, command, name):
    out = tmp_path / name
    tried = set()

    def second(stage, done, total):
        if stage in tried:
            return
        tried.add(stage)
        with pytest.raises(OutputError, match=f"{out.name}: another patchprism process is working on it"):
            do(command, photos, out)

    do(command, photos, out, tell=second)
    assert tried
