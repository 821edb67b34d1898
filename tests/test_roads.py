"""The same photos give the same prism, pictures, arrays and report in every kind of job."""

from __future__ import annotations

import json
import zipfile
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from roads import extract_features, render_photos
from toys import Toy, make_photos

import patchprism
from patchprism import Prism
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings

SETTINGS = Settings(size=48)
PICTURES = {"overlay_alpha": 0.5, "arrays": True}
SCHEMA = json.loads(files("patchprism.jobs").joinpath("report.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photos and a file that is not a photo."""
    folder = make_photos(tmp_path_factory.mktemp("photos") / "p", 3)
    (folder / "p0001b.png").write_bytes(b"this is no photo")
    return folder


@pytest.fixture(scope="module")
def in_memory(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("roads") / "memory"
    with open_engine() as engine:
        outcome = render_photos(
            [photos], out, settings=SETTINGS, engine=engine, backbone=Toy(), in_memory=True, **PICTURES
        )
    assert outcome.n_photos == 3
    return out


def _sharded(photos, out, engine):
    render_photos([photos], out, settings=SETTINGS, engine=engine, backbone=Toy(), **PICTURES)


def _resumed(photos, out):
    class Stop(BaseException):
        pass

    def stop(stage, done, total):
        if stage == "pictures" and done:
            raise Stop

    with open_engine() as engine:
        options = {"settings": SETTINGS, "engine": engine, "backbone": Toy(), **PICTURES}
        with pytest.raises(Stop):
            render_photos([photos], out, tell=stop, **options)
        render_photos([photos], out, **options)


def _stored(photos, out, tokens):
    store = out.with_name(f"{tokens}.zarr")
    with open_engine() as engine:
        extract_features([photos], store, settings=SETTINGS, engine=engine, backbone=Toy(), tokens=tokens)
        render_photos([store], out, settings=Settings(), engine=engine, **PICTURES)


def _visualized(photos, out):
    view = patchprism.visualize([photos], size=48, backbone=Toy(), errors="report")
    view.save(out, **PICTURES)
    assert view.report()["failures"] == json.loads((out / "report.json").read_text("utf-8"))["failures"]


ROADS = {
    "shards": lambda photos, out: _sharded(photos, out, open_engine()),
    "resumed": _resumed,
    "store of float32": lambda photos, out: _stored(photos, out, "float32"),
    "visualize": _visualized,
}


def _report(out):
    report = json.loads((out / "report.json").read_text("utf-8"))
    jsonschema.validate(report, SCHEMA)
    del report["seconds"]
    return report


def _without_input(report):
    """A report without the source of the photos and the device of the network."""
    settings = {key: value for key, value in report["settings"].items() if key not in ("device", "engine")}
    # A store's settings may have other names for the same meaning.
    weights = {key: value for key, value in report["model"]["weights"].items() if key != "file"}
    return report | {
        "settings": settings,
        "model": report["model"] | {"weights": weights},
        "files": {name: made["bytes"] for name, made in report["files"].items()},
    }


def _npz(path):
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize("road", [*ROADS, "ray"])
def test_every_job_gives_the_same(road, photos, in_memory, tmp_path, request):
    out = tmp_path / "out"
    if road == "ray":
        _sharded(photos, out, request.getfixturevalue("ray_engine"))
    else:
        ROADS[road](photos, out)
    names = {path.name for path in in_memory.iterdir()}
    assert {path.name for path in out.iterdir()} == names
    assert _without_input(_report(out)) == _without_input(_report(in_memory))
    for name in names - {"report.json"}:
        assert (out / name).read_bytes() == (in_memory / name).read_bytes(), name


def test_a_store_of_float16_is_nearly_the_same(photos, in_memory, tmp_path):
    out = tmp_path / "out"
    _stored(photos, out, "float16")
    found, wanted = _report(out), _report(in_memory)
    assert [photo["photo"] for photo in found["photos"]] == [photo["photo"] for photo in wanted["photos"]]
    for photo, expected in zip(found["photos"], wanted["photos"], strict=True):
        assert photo.keys() == expected.keys()
        assert photo["foreground"] == pytest.approx(expected["foreground"], abs=0.05)
        stem = Path(photo["photo"]).stem
        a, b = _npz(out / f"{stem}.npz"), _npz(in_memory / f"{stem}.npz")
        np.testing.assert_allclose(a["score"], b["score"], atol=0.01)
        np.testing.assert_allclose(a["rgb_all"], b["rgb_all"], atol=0.02)
    assert found["failures"] == wanted["failures"]


def test_a_clip_of_the_photos_gives_their_prism(tmp_path):
    folder = make_photos(tmp_path / "p", 3, shapes=((48, 64),))
    view = patchprism.visualize([folder], size=48, backbone=Toy())
    saved = tmp_path / "p.prism"
    patchprism.render_video(
        folder,
        tmp_path / "frames" / "%03d.png",
        size=48,
        backbone=Toy(),
        save_prism=saved,
        layout="colors",
        steady=False,
    )
    prism = Prism.load(saved)
    np.testing.assert_array_equal(prism.scene_components_, view.prism.scene_components_)
    assert prism.threshold_ == view.prism.threshold_
    for index, name in enumerate(sorted(path.name for path in (tmp_path / "frames").glob("*.png"))):
        frame = np.asarray(Image.open(tmp_path / "frames" / name)).astype(int)
        assert np.abs(frame - view.picture(index)).max() <= 1


def test_frames_of_several_shards_give_the_prism_of_the_same_photos(tmp_path):
    """Their tokens are on disk, with one shard in memory at a time."""
    folder = make_photos(tmp_path / "p", 66, shapes=((24, 32),))
    view = patchprism.visualize([folder], size=24, backbone=Toy())
    out, seen = tmp_path / "frames", []
    report = patchprism.render_video(
        folder,
        out,
        size=24,
        backbone=Toy(),
        fit_frames=1000,
        progress=lambda stage, done, total: seen.append((stage, done)),
    )
    np.testing.assert_array_equal(report.prism.object_components_, view.prism.object_components_)
    assert report.prism.n_photos_ == 66
    assert report.prism.threshold_ == view.prism.threshold_
    assert len(report.hints) == len(view.hints())
    assert ("fit, pass 1", 2) in seen  # two shards


def test_the_first_64_photos_do_not_depend_on_the_65th(tmp_path):
    """A job of 64 photos runs in memory, one of 65 in shards; with the same prism, their results are equal."""
    folder = make_photos(tmp_path / "p", 65, shapes=((24, 32),))
    paths = sorted(folder.iterdir())
    prism = tmp_path / "p.prism"
    patchprism.visualize(paths[:4], size=24, backbone=Toy()).prism.save(prism)
    reports = {}
    for count in (64, 65):
        out = tmp_path / str(count)
        with open_engine() as engine:
            render_photos(
                paths[:count],
                out,
                settings=Settings(size=24),
                engine=engine,
                backbone=Toy(),
                prism=Prism.load(prism),
                in_memory=count == 64,
            )
        reports[count] = _report(out)
    few, many = reports[64], reports[65]
    assert many["photos"][:64] == few["photos"]
    for report in (few, many):
        for key in ("photos", "files", "hints"):
            del report[key]
    assert few == many


def test_the_schema_is_strict(in_memory):
    report = json.loads((in_memory / "report.json").read_text("utf-8"))
    for broken in (
        report | {"version": 1},
        report | {"more": 1},
        {key: value for key, value in report.items() if key != "hints"},
        report | {"photos": [report["photos"][0] | {"foreground": 2.0}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_the_archive_names_its_arrays(in_memory):
    with zipfile.ZipFile(next(in_memory.glob("*.npz"))) as archive:
        assert set(archive.namelist()) == {"score.npy", "foreground.npy", "rgb.npy", "rgb_all.npy"}
