"""One suite for all engines: this process, a Ray cluster of two local workers, and a fake that loses workers.

The expected results are computed independently, by the in-memory fit and ``visualize``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
from roads import extract_features, fit_prism, render_photos
from toys import DiesOfThree, FakeEngine, Square, Toy, deadly_reader, make_photos, slow_reader, tree

import patchprism
from patchprism.errors import EngineError, OptionError, PhotoError
from patchprism.jobs.engines import WorkerLost, open_engine
from patchprism.jobs.engines.ray import RayEngine
from patchprism.jobs.inputs import list_photos
from patchprism.jobs.settings import Settings
from patchprism.prism.estimator import Prism

SETTINGS = Settings(model="toy", size=48)


@pytest.fixture(params=["local", "fake", "ray"])
def engine(request):
    if request.param == "ray":
        return request.getfixturevalue("ray_engine")
    return FakeEngine(deaths=3) if request.param == "fake" else open_engine()


@pytest.fixture(params=["local", "fake", pytest.param("ray", marks=pytest.mark.slow)])
def any_engine(request):
    """The same engines; Ray is slow, so this test of it is marked slow."""
    if request.param == "ray":
        return request.getfixturevalue("ray_engine")
    return FakeEngine(deaths=3) if request.param == "fake" else open_engine()


@pytest.fixture(params=["fake", "ray"])
def cluster(request):
    """Engines whose workers may die without ending the job."""
    return request.getfixturevalue("ray_engine") if request.param == "ray" else FakeEngine()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """150 photos, three shards, one in ten bad."""
    folder = make_photos(tmp_path_factory.mktemp("photos") / "p", 150)
    for i in range(5, 150, 10):
        (folder / f"p{i:04d}.png").write_bytes(b"no photo at all")
    return folder


@pytest.fixture(scope="module")
def view(photos):
    """The same job in memory."""
    return patchprism.visualize([photos], backbone=Toy(), size=48, errors="report")


@pytest.fixture(autouse=True)
def parent(monkeypatch):
    """Set the process that must not die, which is that of the tests."""
    monkeypatch.setenv("PATCHPRISM_TEST_PARENT", str(os.getpid()))


def test_every_item_once(engine):
    done = list(engine.map(Square(), iter(range(12))))
    assert sorted(done) == [(i, i * i) for i in range(12)]
    assert list(engine.map(Square(), [])) == []


def test_errors_keep_their_kind(engine):
    with pytest.raises(PhotoError, match="13: brings bad luck") as raised:
        list(engine.map(Square(), [1, 13]))
    assert raised.value.name == "13"


def test_a_deadly_item_is_given_up_and_the_others_are_done(cluster):
    done = dict(cluster.map(DiesOfThree(), range(6), attempts=2))
    assert isinstance(done.pop(3), WorkerLost)
    assert done == {i: -i for i in (0, 1, 2, 4, 5)}


@pytest.fixture(scope="module")
def local_prism(photos, tmp_path_factory):
    """The prism that the local engine fits."""
    out = tmp_path_factory.mktemp("prism") / "p.prism"
    fit_prism([photos], out, settings=SETTINGS, engine=open_engine(), backbone=Toy())
    return Prism.load(out)


def test_same_prism(engine, photos, view, local_prism, tmp_path):
    outcome = fit_prism([photos], tmp_path / "p.prism", settings=SETTINGS, engine=engine, backbone=Toy())
    prism, expected = Prism.load(tmp_path / "p.prism"), view.prism
    assert outcome.n_photos == prism.n_photos_ == 135
    assert prism.n_patches_ == expected.n_patches_
    for name in ("scene_components_", "object_components_"):
        np.testing.assert_allclose(getattr(prism, name), getattr(local_prism, name), atol=1e-6)
        # The in-memory fit sums in another order, which turns later components because their variances are close.
        np.testing.assert_allclose(getattr(prism, name)[:3], getattr(expected, name)[:3], atol=1e-5)
    assert prism.side_ == expected.side_
    assert prism.threshold_ == pytest.approx(expected.threshold_, abs=1 / 256)
    for tokens, part in zip(view.features, view.parts, strict=True):
        differing = prism.foreground_of(tokens) != part.foreground
        assert (np.abs(part.score[differing] - prism.threshold_) < 1e-4).all()
    assert [failure.photo for failure in outcome.failures] == [failure.photo for failure in view.failures]
    assert list(tmp_path.iterdir()) == [tmp_path / "p.prism"]


def test_same_pictures_as_in_memory(any_engine, photos, view, tmp_path):
    from PIL import Image

    options = {"overlay_alpha": 0.5, "arrays": True}
    outcome = render_photos(
        [photos], tmp_path / "out", settings=SETTINGS, engine=any_engine, backbone=Toy(), **options
    )
    view.save(tmp_path / "expected", **options)
    found, expected = tree(tmp_path / "out"), tree(tmp_path / "expected")
    assert set(found) == set(expected)
    assert outcome.n_photos == 135
    for name in expected:
        if name.endswith((".pca.png", ".overlay.png")):
            a, b = (
                np.asarray(Image.open(tmp_path / where / name)).astype(int) for where in ("out", "expected")
            )
            assert a.shape == b.shape
            assert np.mean(np.abs(a - b) > 1) < 0.01, name
    report = json.loads(found["report.json"])
    wanted = view.report()
    assert set(wanted) <= set(report) | {"settings"}
    assert len(report["photos"]) == 135
    assert report["failures"] == wanted["failures"]
    assert report["photos"][7]["files"] == ["p0008.pca.png", "p0008.overlay.png", "p0008.npz"]
    assert report["photos"][7]["crop"] == wanted["photos"][7]["crop"]


def test_same_store(any_engine, photos, view, tmp_path):
    from patchprism.features.store import StoredFeatures

    extract_features(
        [photos], tmp_path / "f.zarr", settings=SETTINGS, engine=any_engine, tokens="float32", backbone=Toy()
    )
    stored = StoredFeatures(tmp_path / "f.zarr")
    assert stored.names == view.names
    for a, b in zip(stored, view.features, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_store_needs_neither_network_nor_photos(any_engine, photos, view, tmp_path):
    moved = shutil.copytree(photos, tmp_path / "moved")
    extract_features(
        [moved], tmp_path / "f.zarr", settings=SETTINGS, engine=any_engine, tokens="float32", backbone=Toy()
    )
    shutil.rmtree(moved)
    outcome = render_photos(
        [tmp_path / "f.zarr"], tmp_path / "out", settings=Settings(), engine=any_engine, overlay_alpha=0.5
    )
    assert outcome.n_photos == outcome.missing == 135
    assert outcome.model == "toy"  # a model that is not registered
    assert not list((tmp_path / "out").glob("*.overlay.png"))
    assert len(list((tmp_path / "out").glob("*.pca.png"))) == 135
    found, expected = outcome.prism.scene_components_, view.prism.scene_components_
    np.testing.assert_allclose(found[:3], expected[:3], atol=1e-5)


class SlowReplies:
    """Ray on a busy machine: a worker that dies of the item 3 loses all results that are not delivered yet."""

    class Actor:
        def __init__(self):
            self.do, self.items = SimpleNamespace(remote=self.take), []

        def take(self, _name, _task, item):
            self.items.append(item)
            return self, item

    def __init__(self):
        kinds = ("RayActorError", "ObjectLostError", "RayTaskError")
        self.exceptions = SimpleNamespace(**{kind: type(kind, (Exception,), {}) for kind in kinds})

    def cluster_resources(self):
        return {"CPU": 4}

    def put(self, value):
        return value

    def remote(self, **_):
        return lambda _class: SimpleNamespace(remote=lambda _threads: self.Actor())

    def wait(self, references, num_returns):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        actor, item = reference
        if 3 in actor.items:
            raise self.exceptions.RayActorError("it died")
        actor.items.remove(item)
        return -item


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_late_reply_does_not_blame_another_item_for_a_death(workers, attempts):
    engine = object.__new__(RayEngine)
    engine._ray, engine.workers, engine._kept = SlowReplies(), workers, []
    done = dict(engine.map(DiesOfThree(), range(6), attempts=attempts))
    assert isinstance(done.pop(3), WorkerLost)
    assert done == {i: -i for i in (0, 1, 2, 4, 5)}


@pytest.mark.parametrize("cluster", ["fake", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_photo_that_kills_its_reader_is_reported(cluster, tmp_path):
    folder = make_photos(tmp_path / "p", 80)
    (folder / "p0017.png").rename(folder / "p0017-deadly.png")
    outcome = render_photos(
        [folder], tmp_path / "out", settings=SETTINGS, engine=cluster, backbone=Toy(), reader=deadly_reader
    )
    assert outcome.n_photos == 79
    (failure,) = outcome.failures
    assert failure.photo.endswith("p0017-deadly.png")
    assert failure.reason.startswith("crashed the process that was reading it")
    assert len(list((tmp_path / "out").glob("*.pca.png"))) == 79
    assert "deadly" not in "".join(path.name for path in (tmp_path / "out").glob("*.pca.png"))


def test_a_worker_that_is_killed_is_replaced(ray_engine, tmp_path):
    import threading

    folder = make_photos(tmp_path / "p", 130)
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            for mark in folder.glob("p00[3-9]*.pid"):
                pid = int(mark.name.split(".")[1])
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = extract_features(
        list_photos([folder]),
        tmp_path / "f.zarr",
        settings=SETTINGS,
        engine=ray_engine,
        backbone=Toy(),
        reader=slow_reader,
    )
    killer.join()
    assert killed, "no worker was seen at work"
    assert killed[0] != os.getpid()
    assert outcome.n_photos == 130
    assert outcome.failures == []
    with open_engine() as local:
        extract_features(
            list_photos([folder]), tmp_path / "g.zarr", settings=SETTINGS, engine=local, backbone=Toy()
        )
    from patchprism.features.store import StoredFeatures

    for a, b in zip(StoredFeatures(tmp_path / "f.zarr"), StoredFeatures(tmp_path / "g.zarr"), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_remote_photos_and_outputs(photos, tmp_path):
    """Addresses in fsspec's in-memory file system."""
    fsspec = pytest.importorskip("fsspec")
    from patchprism.features.store import StoredFeatures

    system = fsspec.filesystem("memory")
    for path in sorted(photos.iterdir())[:12]:
        system.pipe_file(f"/photos/{path.name}", path.read_bytes())
    options = {"settings": SETTINGS, "engine": open_engine(), "backbone": Toy()}
    outcome = extract_features(["memory://photos"], "memory://out/f.zarr", **options)
    assert outcome.n_photos == 11
    assert outcome.failures[0].photo == "memory:///photos/p0005.png"
    stored = StoredFeatures("memory://out/f.zarr")
    assert len(stored) == 11
    outcome = render_photos(["memory://photos/*.png"], "memory://out/pictures", **options)
    assert system.exists("/out/pictures/p0003.pca.png")
    assert system.exists("/out/pictures/report.json")
    assert not system.exists("/out/pictures/.patchprism-work")
    render_photos(["memory://out/f.zarr"], tmp_path / "here", settings=Settings(), engine=open_engine())
    assert (tmp_path / "here" / "p0003.pca.png").is_file()
    with pytest.raises(PhotoError, match="matches no photo"):
        extract_features(["memory://nowhere/*.png"], "memory://out/g.zarr", **options)


class NoLuck(FakeEngine):
    """Every worker dies immediately."""

    def map(self, task, items, *, attempts=3, alone=False):
        yield from ((item, WorkerLost("it died")) for item in items)


def test_an_engine_without_living_workers_says_so(photos, tmp_path):
    with pytest.raises(EngineError, match="workers died repeatedly while working on photos 1 to 64: it died"):
        extract_features([photos], tmp_path / "f.zarr", settings=SETTINGS, engine=NoLuck(), backbone=Toy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("spark", None), "engine must be one of local, ray, got 'spark'"),
        (("local", 2), "workers is only for the engine ray"),
        (("ray", 0), "workers must be a whole number from 1 to 100000, got 0"),
    ],
)
def test_unknown_engines_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        open_engine(options[0], workers=options[1])
