"""Photos read in separate processes: the same photos and errors, and photos that kill their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from roads import extract_features, render_photos
from toys import Toy, deadly_reader, make_photos, tree

from patchprism.errors import PhotoError
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.photos.isolated import IsolatedReader, isolated
from patchprism.photos.sources import read_source

SETTINGS = Settings(model="toy", size=48, batch_size=4)


def talkative_reader(name):
    """A reader that prints to standard output, which also carries the answers, as a decoder in C might."""
    os.write(1, b"libfoo: warning\n")
    return read_source(name)


def broken_reader(name):
    raise ZeroDivisionError(f"no {name}")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended and was not waited for still exists as a zombie.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_photos_and_errors_are_those_of_the_reader(tmp_path):
    names = [str(path) for path in sorted(make_photos(tmp_path / "p", 6).iterdir())]
    (tmp_path / "text.png").write_text("no photo")
    with IsolatedReader(talkative_reader) as reader, ThreadPoolExecutor(3) as pool:
        for name, photo in zip(names, pool.map(reader, names), strict=True):
            np.testing.assert_array_equal(photo, read_source(name))
        for name in (str(tmp_path / "text.png"), str(tmp_path / "nothing.png")):
            with pytest.raises(PhotoError) as there:
                reader(name)
            with pytest.raises(PhotoError) as here:
                read_source(name)
            assert str(there.value) == str(here.value)
        np.testing.assert_array_equal(reader(names[0]), read_source(names[0]))
        children = [child._process.pid for child in reader._all]
        assert 2 <= len(children) <= 4
    assert not any(alive(pid) for pid in children)


def test_a_defect_is_raised_and_not_reported_as_a_bad_photo():
    with IsolatedReader(broken_reader) as reader:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match=r"no x\.png"):
                reader("x.png")


def test_a_reader_that_cannot_be_sent_runs_in_this_process():
    seen = []

    def reader(name):
        seen.append(name)

    with isolated(reader) as found:
        found("a")
    assert found is reader
    assert seen == ["a"]


def test_a_photo_that_kills_its_process_is_reported_and_the_run_continues(tmp_path):
    folder = make_photos(tmp_path / "p", 80)
    (folder / "p0017.png").rename(folder / "p0017-deadly.png")
    (folder / "p0070.png").rename(folder / "p0070-deadly.png")
    with open_engine() as engine:
        outcome = render_photos(
            [folder],
            tmp_path / "out",
            settings=SETTINGS,
            engine=engine,
            backbone=Toy(),
            reader=deadly_reader,
        )
    assert outcome.n_photos == 78
    assert [Path(failure.photo).name for failure in outcome.failures] == [
        "p0017-deadly.png",
        "p0070-deadly.png",
    ]
    assert {failure.reason for failure in outcome.failures} == {
        "crashed the process that was reading it (exit code 1)"
    }
    assert len(list((tmp_path / "out").glob("*.pca.png"))) == 78


def test_a_signal_is_named(tmp_path):
    (name,) = [str(path) for path in make_photos(tmp_path / "p", 1).iterdir()]
    with IsolatedReader(read_source) as reader:
        reader(name)
        os.kill(reader._all[0]._process.pid, signal.SIGSEGV)
        with pytest.raises(PhotoError, match=r"crashed the process that was reading it \(SIGSEGV\)"):
            reader(name)
        np.testing.assert_array_equal(reader(name), read_source(name))


def test_nothing_is_left_when_the_job_is_killed(tmp_path):
    (name,) = [str(path) for path in make_photos(tmp_path / "p", 1).iterdir()]
    script = (
        "import sys, time; from patchprism.photos.isolated import IsolatedReader; "
        "from patchprism.photos.sources import read_source; reader = IsolatedReader(read_source); "
        f"reader({name!r}); print(reader._all[0]._process.pid, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    job = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    child = int(job.stdout.readline())
    assert alive(child)
    job.kill()
    job.communicate()
    deadline = time.monotonic() + 20
    while alive(child):
        assert time.monotonic() < deadline, "the reader outlived the job"
        time.sleep(0.02)


def test_features_are_those_of_a_reader_in_the_process(tmp_path):
    folder = make_photos(tmp_path / "p", 70)
    with open_engine() as engine:
        for out, reader in (("a.zarr", read_source), ("b.zarr", lambda name: read_source(name))):
            extract_features(
                [folder],
                tmp_path / out,
                settings=SETTINGS,
                engine=engine,
                backbone=Toy(),
                reader=reader,
            )
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
