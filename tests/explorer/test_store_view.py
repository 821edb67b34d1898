"""A feature store instead of photos: the explorer's page, the server, and pictures of every style."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from PIL import Image
from roads import extract_features, render_photos, view_store
from toys import Toy, make_photos
from typer.testing import CliRunner

import patchprism
from patchprism import Prism
from patchprism.cli import explore as command_line
from patchprism.cli.app import app
from patchprism.errors import OptionError, PhotoError, PrismError, StoreError, WeightsError
from patchprism.explorer import build_message
from patchprism.explorer.work import FitRequest, Job, Session, Workshop
from patchprism.features.store import StoredFeatures
from patchprism.jobs.engines import open_engine
from patchprism.jobs.opened import record_of
from patchprism.jobs.settings import Settings
from patchprism.photos import sources
from patchprism.photos.images import read_photo
from patchprism.photos.sources import GONE_GREY
from patchprism.support.arrays import to_uint8

MODEL, SIZE = "efficientnet_lite2", 160  # like the view in conftest.py


@pytest.fixture
def toy_store(tmp_path):
    """A store of 70 photos, which are two shards, from a network that needs no weights."""
    photos = make_photos(tmp_path / "photos", 70)
    with open_engine() as engine:
        settings = Settings(model="toy", size=48)
        extract_features([photos], tmp_path / "f.zarr", settings=settings, engine=engine, backbone=Toy())
    return tmp_path / "f.zarr"


def rendered(store, out, **options):
    with open_engine() as engine:
        return render_photos([store], out, settings=Settings(), engine=engine, **options)


@pytest.mark.parametrize("sample", [None, 9])
def test_its_colours_equal_those_of_render(toy_store, tmp_path, sample):
    view = view_store(toy_store, settings=Settings(), sample=sample, seed=4)
    rendered(toy_store, tmp_path / "out", sample=sample, seed=4, arrays=True)
    assert len(view) == (sample or 70)
    for name, part in zip(view.names, view.parts, strict=True):
        with np.load(tmp_path / "out" / f"{name.rsplit('/', 1)[1][:-4]}.npz") as arrays:
            for key in ("score", "foreground", "rgb", "rgb_all"):
                np.testing.assert_array_equal(arrays[key], getattr(part, key))
    assert view.prism.origin == Prism.load(tmp_path / "out" / "prism.safetensors").origin
    assert view.record == Toy().record
    assert view.gone == []


def test_visualize_accepts_a_store(toy_store):
    view = patchprism.visualize(toy_store, threshold=0.5, opening=1)
    again = patchprism.visualize([str(toy_store)], prism=view.prism)
    assert view.prism.threshold_ == 0.5
    assert (view.fitted_here, again.fitted_here) == (True, False)
    for one, other in zip(view.colors, again.colors, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(OptionError, match="must be given alone"):
        patchprism.visualize([toy_store, toy_store])
    with pytest.raises(OptionError, match="size is fixed by the feature store"):
        patchprism.visualize(toy_store, size=64)
    with pytest.raises(OptionError, match="backbone is not needed"):
        patchprism.visualize(toy_store, backbone=Toy())
    with pytest.raises(StoreError, match="not a feature store"):
        patchprism.visualize("nothing.zarr")
    stranger = Prism.load(again_saved(view))
    stranger.origin["dtype"] = "bfloat16"
    with pytest.raises(PrismError, match="another dtype"):
        patchprism.visualize(toy_store, prism=stranger)
    assert patchprism.visualize(toy_store, prism=stranger, force=True).prism is stranger


def again_saved(view):
    path = view.names[0] + ".prism"
    view.prism.save(path)
    return path


def test_missing_and_replaced_photos_are_grey(toy_store, tmp_path):
    names = sorted((tmp_path / "photos").iterdir())
    names[0].unlink()
    Image.new("RGB", (9, 9)).save(names[1])
    names[2].write_text("no photo")
    view = view_store(toy_store, settings=Settings())
    assert view.gone == [str(name) for name in names[:3]]
    # The photo is back with the right size, but earlier reports about it do not change.
    names[0].write_bytes(names[3].read_bytes())
    assert view.gone == [str(name) for name in names[:3]]
    assert (view.photos.sources[0].read() == GONE_GREY).all()
    for at in range(3):
        photo = view.photos.read(at)
        assert photo.shape == (*view.sizes[at], 3)
        assert (photo == GONE_GREY).all()
    assert view.photos.read(3).std() > 1
    assert view.picture(0, overlay_alpha=0.5).shape[:2] == view.sizes[0]


def test_photos_are_read_only_when_they_are_shown(toy_store, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        sources, "read_photo", lambda source, name, range=None: read.append(name) or read_photo(source)
    )
    view = view_store(toy_store, settings=Settings())
    assert read == []
    (tmp_path / "photos" / view.names[1].rsplit("/", 1)[1]).unlink()
    assert view.photos.read(0).std() > 1
    assert read == [view.names[0]]
    assert (view.photos.read(1) == GONE_GREY).all()
    assert view.gone == [view.names[1]]
    assert sorted(read) == sorted({*view.names} - {view.names[1]})  # each photo once


# ---------------------------------------------------------------- photos at addresses


@pytest.fixture
def remote_store(tmp_path):
    """A function that makes a store of photos in fsspec's memory at an address."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.store.clear()
    for path in sorted(make_photos(tmp_path / "away", 4).iterdir()):
        system.pipe_file(f"/bucket/{path.name}", path.read_bytes())

    def make(out):
        with open_engine() as engine:
            settings = Settings(model="toy", size=48)
            extract_features(["memory://bucket"], out, settings=settings, engine=engine, backbone=Toy())
        return out

    yield make
    system.store.clear()


def photos_shown(store, out, **options):
    """The photos that visualize and render show, which must be the same."""
    view = patchprism.visualize(store, **options)
    grey = [bool((view.photos.read(at) == GONE_GREY).all()) for at in range(len(view))]
    assert view.gone == [name for name, missing in zip(view.names, grey, strict=True) if missing]
    outcome = rendered(store, out, overlay_alpha=0.5, **options)
    assert outcome.missing == sum(grey)
    assert len(list(out.glob("*.overlay.png"))) == len(view) - sum(grey)
    return [not missing for missing in grey], outcome.unasked


def test_addresses_in_the_stores_own_bucket_are_read(remote_store, tmp_path):
    store = remote_store("memory://bucket/f.zarr")
    assert photos_shown(store, tmp_path / "o") == ([True] * 4, [])


def test_addresses_elsewhere_are_read_only_on_request(remote_store, tmp_path):
    store = remote_store(str(tmp_path / "f.zarr"))
    assert photos_shown(store, tmp_path / "o") == ([False] * 4, ["memory://bucket"])
    assert photos_shown(store, tmp_path / "p", fetch_from=["memory://bucket"]) == ([True] * 4, [])
    view = patchprism.visualize(store, fetch_from="memory://bucket/")
    assert view.gone == []
    assert build_message(view).header["command"]["input"] == [store, "--fetch-from", "memory://bucket"]
    assert patchprism.visualize(store, fetch_from=["memory://buck"]).gone == view.names
    store = remote_store("memory://other/f.zarr")  # the same protocol, another bucket
    assert patchprism.visualize(store).gone == view.names


def test_an_interrupted_run_is_not_resumed_with_other_addresses(remote_store, tmp_path):
    store = remote_store(str(tmp_path / "f.zarr"))

    def stop(stage, done, total):
        if stage == "pictures" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rendered(store, tmp_path / "o", overlay_alpha=0.5, tell=stop)
    assert rendered(store, tmp_path / "o", overlay_alpha=0.5, fetch_from=["memory://bucket"]).missing == 0


def test_every_error_of_a_file_system_becomes_a_photo_error(monkeypatch):
    class Odd(Exception):
        pass

    class System:
        def cat_file(self, path):
            raise Odd("no credentials\nread all about it")

    monkeypatch.setattr(sources, "filesystem", lambda url: (System(), url))
    with pytest.raises(PhotoError, match=r"x.png: no credentials$"):
        sources.read_source("s3://bucket/x.png")


HOSTILE = (
    "memory://other/p0000.png",
    "memory://bucket/../other/p0000.png",
    "memory://bucket.evil/p0000.png",
    "gs://bucket/p0000.png",
    "http://bucket/p0000.png",
    "s3://bucket/p0000.png",
    "MEMORY://bucket/p0000.png",
    "memory://bucket\\@other/p0000.png",
    "zip://p0000.png::memory://bucket/a.zip",
    "memory://bucket/a.zip::http://other/p0000.png",
    "local:///dev/zero",
    "file:///dev/zero",
    "/dev/zero",
    "file://bucket/p0000.png",
    "data:image/png;base64,AAAA",
    "memory://bucket",
    "memory://bucket/",
    "p\0.png",
    "memory://bucket/p\x1b[2J.png",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_store_cannot_cause_requests_to_other_hosts(remote_store, tmp_path, monkeypatch, name):
    import fsspec

    (content,) = list(fsspec.filesystem("memory").store.values())[:1]
    fsspec.filesystem("memory").pipe_file("/other/p0000.png", content.getvalue())
    asked = []
    true = fsspec.core.url_to_fs
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **rest: asked.append(url) or true(url, **rest))
    opened = []
    places = sources.places_for("memory://bucket/f.zarr")
    assert sources.read_stored(name, (48, 64), places, lambda name: opened.append(name)) is None
    assert opened == []
    assert all(url.startswith("memory://bucket") and "::" not in url and ".." not in url for url in asked)


def test_addresses_must_be_files_of_reasonable_size(remote_store, monkeypatch):
    places = sources.places_for("memory://bucket/f.zarr")
    assert sources.read_stored("memory://bucket/p0000.png", (48, 64), places) is not None
    assert sources.read_stored("memory:///bucket/p0000.png", (48, 64), places) is not None
    assert sources.read_stored("memory://bucket/p0000.png", (64, 48), places) is None
    assert sources.read_stored("memory://bucket/p9999.png", (48, 64), places) is None
    with monkeypatch.context() as patched:
        patched.setattr(sources, "MAX_FETCHED", 100)
        assert sources.read_stored("memory://bucket/p0000.png", (48, 64), places) is None
    assert sources.read_stored("local:///dev/zero", (48, 64), ["local://dev"]) is None


@pytest.mark.parametrize(
    "wrong", ["bucket", "s3://", "s3://bucket/photos", "/photos", "file:///photos", "a::s3://b"]
)
def test_fetch_from_must_be_a_bucket_or_a_host(toy_store, tmp_path, wrong):
    with pytest.raises(OptionError, match=r"like s3://bucket, got "):
        patchprism.visualize(toy_store, fetch_from=[wrong])
    with pytest.raises(OptionError, match=r"like s3://bucket, got "):
        rendered(toy_store, tmp_path / "o", fetch_from=[wrong])
    with pytest.raises(OptionError, match="fetch_from is only for feature stores"):
        patchprism.visualize([tmp_path / "photos"], fetch_from=["s3://bucket"], model=MODEL)


def test_the_commands_explain_how_to_read_other_addresses(remote_store, tmp_path):
    store = remote_store(str(tmp_path / "f.zarr"))
    page = ["explore", store, "--html", str(tmp_path / "page.html")]
    pictures = ["render", store, "-o", str(tmp_path / "o"), "--overlay", "0.5"]
    figures = [
        "render",
        store,
        "-o",
        str(tmp_path / "f"),
    ]  # no picture needs the photo, but the figures show it
    said = "at memory://bucket were not fetched; to fetch them, add --fetch-from memory://bucket"
    for command in (page, pictures, figures):
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0
        assert "4 photos missing or replaced since" in done.stderr
        assert said in done.stderr
        done = CliRunner().invoke(app, [*command, "--fetch-from", "memory://bucket"], catch_exceptions=False)
        assert done.exit_code == 0
        assert "note" not in done.stderr


def test_a_store_of_an_invalid_model_is_refused(toy_store):
    store = StoredFeatures(toy_store)
    del store.model["width"]
    with pytest.raises(StoreError, match="lacks 'width'"):
        record_of(store)
    store = StoredFeatures(toy_store)
    store.model["patch_size"] = "14"
    with pytest.raises(StoreError, match="is not valid"):
        record_of(store)


@pytest.mark.parametrize(
    "style",
    [
        {"background": "grey"},
        {"background": "photo"},
        {"basis": "all"},
        {"upsample": "bilinear"},
        {"upsample": "guided", "overlay_alpha": 0.4, "background": "photo", "basis": "all"},
    ],
)
def test_pictures_shard_by_shard_have_every_style(toy_store, tmp_path, style):
    view = view_store(toy_store, settings=Settings())
    gone = tmp_path / "photos" / view.names[1].rsplit("/", 1)[1]
    gone.unlink()
    outcome = rendered(toy_store, tmp_path / "out", **style)
    alpha = style.get("overlay_alpha")
    plain = {key: value for key, value in style.items() if key != "overlay_alpha"}
    stems = [name.rsplit("/", 1)[1][:-4] for name in view.names]
    for at in (0, 2, 69):
        made = np.asarray(Image.open(tmp_path / "out" / f"{stems[at]}.pca.png").convert("RGB"))
        np.testing.assert_array_equal(made, view.picture(at, **plain))
        if alpha is not None:
            made = np.asarray(Image.open(tmp_path / "out" / f"{stems[at]}.overlay.png").convert("RGB"))
            over = {key: value for key, value in plain.items() if key != "background"}
            np.testing.assert_array_equal(made, view.picture(at, overlay_alpha=alpha, **over))
    # Without the photo, everything that can be drawn is drawn, and the photo is counted as missing.
    asks = "photo" in style.values() or "guided" in style.values()
    assert outcome.missing == 1  # the figures need it even if no picture does
    made = np.asarray(Image.open(tmp_path / "out" / f"{stems[1]}.pca.png").convert("RGB"))
    instead = {"guided": ("upsample", "bilinear"), "photo": ("background", "black")}
    for value in list(plain.values()):
        if asks and value in instead:
            plain[instead[value][0]] = instead[value][1]
    np.testing.assert_array_equal(made, view.picture(1, **plain))
    assert not (tmp_path / "out" / f"{stems[1]}.overlay.png").exists()


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def real_store(photo_files, tmp_path_factory):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded model is an extra")
    out = tmp_path_factory.mktemp("store") / "the features.zarr"
    done = CliRunner().invoke(
        app,
        ["features", *map(str, photo_files), "-o", str(out), "--model", MODEL, "--size", str(SIZE), "-q"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    return out


def test_the_pages_command_contains_the_store_and_gives_its_colours(real_store, watch, tmp_path, monkeypatch):
    html = tmp_path / "page.html"
    # No network is needed, so none may be loaded.
    monkeypatch.setattr("patchprism.jobs.network.load_backbone", refuse)
    done = CliRunner().invoke(
        app, ["explore", str(real_store), "--html", str(html), "-q"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    watched = watch(html.as_uri())
    page = watched.page
    page.locator("#threshold").fill("0.45")
    page.locator("#component-red").select_option("4")
    page.locator("#opening").fill("1")
    watched.page.locator("#background").select_option("grey")
    watched.frame()
    page.locator("#copy").click()  # this updates the command
    words = shlex.split(page.locator("#command").inner_text())
    assert words[:3] == ["patchprism", "render", str(real_store)]
    done = CliRunner().invoke(app, [*words[1:-1], str(tmp_path / "o"), "--arrays"], catch_exceptions=False)
    assert done.exit_code == 0
    for index, stem in enumerate(("cat", "astronaut", "a cup")):
        shown = watched.canvas(index)
        with np.load(tmp_path / "o" / f"{stem}.npz") as arrays:
            mask = arrays["foreground"]
            assert 0 < mask.sum() < mask.size
            np.testing.assert_array_equal(to_uint8(arrays["rgb"][mask]), shown[mask][:, :3])


def refuse(*arguments, **options):
    raise AssertionError("a network was loaded")


def fitted(workshop, view, wish, staged=()):
    session = Session(view, b"", list(staged))
    job = Job()
    workshop._fit(session, job, wish)
    return session.view


def test_a_refit_needs_no_network_and_a_new_photo_needs_that_of_the_store(real_store, view, monkeypatch):
    first = view_store(real_store, settings=Settings())
    workshop = Workshop(first, b"", None, device="cpu")
    try:
        with monkeypatch.context() as patched:
            patched.setattr("patchprism.jobs.network.load_backbone", refuse)
            made = fitted(workshop, first, FitRequest(threshold=0.4))
        direct = patchprism.visualize(real_store, threshold=0.4)
        assert made.prism.threshold_ == 0.4
        for one, other in zip(made.colors, direct.colors, strict=True):
            np.testing.assert_array_equal(one, other)
        assert build_message(made).header["command"]["input"] == [str(real_store)]
        # A new photo goes through the network of the store, and no command can contain it.
        cat = view.photos.read(0)
        more = fitted(workshop, made, FitRequest(), [("again.png", cat)])
        assert more.names[3] == "again.png"
        np.testing.assert_allclose(more.features[3], more.features[0], atol=2e-3)  # float16 in the store
        command = build_message(more).header["command"]
        assert (command["input"], command["files"]) == (None, False)
        # The same model with different weights is refused.
        other = Workshop(first, b"", None)
        first.weights = type(first.weights)(source="elsewhere", sha256="f" * 64)
        with pytest.raises(WeightsError, match="differ from those of the feature store"):
            fitted(other, first, FitRequest(), [("again.png", cat)])
        other.close()
    finally:
        workshop.close()


def test_another_model_needs_the_photos(real_store):
    first = view_store(real_store, settings=Settings())
    first.photos.sources[0].gone = True
    workshop = Workshop(first, b"", None)
    try:
        with pytest.raises(OptionError, match="no longer exists"):
            fitted(workshop, first, FitRequest(model="dinov2_vits14"))
    finally:
        workshop.close()


def test_the_served_page_of_a_store(real_store, serve, watch, tmp_path):
    running = serve(tmp_path, real_store)
    try:
        watched = watch(running.address)
        expected = patchprism.visualize(real_store)
        assert not watched.page.locator("#stored").is_visible()  # because all photos are shown
        for i, part in enumerate(expected.parts):
            shown = watched.canvas(i)
            np.testing.assert_array_equal(shown[part.foreground][:, :3], to_uint8(part.rgb[part.foreground]))
    finally:
        assert running.end()[0] in (0, 130)


def test_photos_that_a_page_cannot_contain_are_reported(toy_store, tmp_path, monkeypatch):
    monkeypatch.setattr(command_line, "MAX_SHOWN", 20)
    page = tmp_path / "page.html"

    def run(*arguments):
        return CliRunner().invoke(app, ["explore", *map(str, arguments), "--html", str(page), "-q"])

    done = run(tmp_path / "photos", "--model", MODEL)
    assert isinstance(done.exception, OptionError)
    assert "at most 20 photos, got 70: use sample=20, or" in str(done.exception)
    done = run(toy_store)  # a sample of the store is shown
    assert done.exit_code == 0
    assert "a random sample of 20 of the store's 70 photos is shown" in done.stderr
    assert run(toy_store, "--sample", 5).exit_code == 0
    assert page.stat().st_size > 20_000
    view = view_store(toy_store, settings=Settings(), sample=5)
    assert build_message(view).header["command"]["input"] == [str(toy_store), "--sample", "5", "--seed", "0"]
    (tmp_path / "photos" / view.names[0].rsplit("/", 1)[1]).unlink()
    done = run(toy_store, "--sample", 5)
    assert done.exit_code == 0
    assert "1 photo missing or replaced since" in done.stderr
    view.prism.save(tmp_path / "p.safetensors")
    done = run(toy_store, "--sample", 5, "--prism", tmp_path / "p.safetensors")
    assert "sample is for fitting" in str(done.exception)
