"""A store with more photos than the page shows: the sample, other photos instead of it, and the search over all."""

from __future__ import annotations

import queue
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from roads import extract_features, view_store
from tests.explorer.test_served import as_json, ask, until
from toys import PATCH, Toy, make_photos

import patchprism
from patchprism.errors import OptionError
from patchprism.explorer import stored
from patchprism.explorer.build import build_message
from patchprism.explorer.serve import listen, serve
from patchprism.explorer.stored import MATCHES, Stored
from patchprism.explorer.tasks import shown_task
from patchprism.explorer.work import Workshop
from patchprism.features.store import StoredFeatures
from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.run import Run, Sample
from patchprism.jobs.settings import Settings
from patchprism.jobs.viewing import make_view

COUNT, MOST = 300, 20
MASK = {"mask_threshold": 0.5, "mask_side": "above", "opening": 0, "closing": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """300 photos of 4 x 4 patches."""
    folder = tmp_path_factory.mktemp("stored")
    side = 4 * PATCH
    make_photos(folder / "photos", COUNT, shapes=((side, side),))
    with open_engine() as engine:
        settings = Settings(model="toy", size=side)
        extract_features(
            [folder / "photos"], folder / "f.zarr", settings=settings, engine=engine, backbone=Toy()
        )
    return folder / "f.zarr"


def opened(store, **coloring):
    with open_engine() as engine:
        return make_view([store], Settings(), Run(engine=engine), Coloring(**coloring), most=MOST)


@pytest.fixture(scope="module")
def view(store):
    return opened(store)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(stored, "MAX_SHOWN", MOST)
    monkeypatch.setattr("patchprism.explorer.tasks.MAX_SHOWN", MOST)


def quiet(*_):
    pass


def test_a_large_store_opens_with_a_sample(store, view, monkeypatch):
    asked = view_store(store, settings=Settings(), sample=MOST, seed=0)
    assert view.names == asked.names
    assert view.store == [str(store), "--sample", str(MOST), "--seed", "0"]  # arguments in the shown command
    np.testing.assert_array_equal(view.parts[3].rgb, asked.parts[3].rgb)
    assert f"a random sample of {MOST} of the store's {COUNT} photos is shown" in view.notes
    assert build_message(view).header["stored"] == COUNT
    # Tokens of other photos are not read.
    read = []
    rows = StoredFeatures._rows

    def noted(self, name, start, stop):
        if name == "tokens":
            read.extend(range(start // 16, stop // 16))
        return rows(self, name, start, stop)

    monkeypatch.setattr(StoredFeatures, "_rows", noted)
    again = opened(store, sample=Sample(seed=7))
    assert again.names != view.names
    assert [StoredFeatures(store).names[at] for at in sorted(set(read))] == again.names
    # A given prism also colours a sample, without being fitted to it.
    given = opened(store, prism=view.prism, sample=Sample(seed=0))
    assert (given.names, given.fitted_here, given.store) == (view.names, False, [str(store)])
    with pytest.raises(OptionError, match=f"at most {MOST} photos, got 30: use sample={MOST}, or"):
        opened(store, sample=Sample(count=30))


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_search_finds_the_best_patches_of_the_whole_store(store, view, everywhere):
    photo, patch = 4, 6
    found = Stored.of(view).search(view, photo, patch, MASK, everywhere=everywhere, tell=quiet)
    # Independent computation with all tokens at once.
    all_features = StoredFeatures(store)
    names = all_features.names
    tokens = np.stack([each.reshape(16, -1) for each in all_features]).astype(np.float64)
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    own = names.index(view.names[photo])
    cosine = tokens @ tokens[own, patch]
    shown = patchprism.visualize([str(store)], prism=view.prism, mask_threshold=0.5, mask_side="above")
    foreground = np.stack([part.foreground.ravel() for part in shown.parts])
    if not everywhere:
        cosine[~foreground] = -np.inf
    cosine[own] = -np.inf
    best = np.argsort(-cosine.max(axis=1), kind="stable")[:MATCHES]
    assert [each["place"] for each in found] == best.tolist()
    assert [each["patch"] for each in found] == cosine[best].argmax(axis=1).tolist()
    np.testing.assert_allclose([each["value"] for each in found], cosine[best].max(axis=1), atol=1e-3)
    back = np.einsum("pd,bd->bp", tokens[own], tokens[best, cosine[best].argmax(axis=1)])
    if not everywhere:
        among = foreground[own].copy()
        among[patch] = True
        back[:, ~among] = -np.inf
    assert [each["mutual"] for each in found] == (back.argmax(axis=1) == patch).tolist()
    assert {each["source"] for each in found} == {names[at] for at in best}
    assert all(each["crop"].startswith("data:image/webp;base64,") for each in found)


def wait(workshop, session, task):
    job = workshop.queue(session, task)
    end = time.monotonic() + 30
    while not job.over and time.monotonic() < end:
        time.sleep(0.01)
    return job


def test_other_photos_get_the_same_colours(view, small):
    workshop = Workshop(view, build_message(view).to_bytes(), None)
    session = workshop.session(workshop.open())
    job = wait(workshop, session, shown_task(workshop.stored, [2, 5], [], ("P00", 1)))
    assert job.state == "done", job.error
    made = session.view
    assert len(made) == MOST
    assert made.names[:2] == [view.names[2], view.names[5]]
    assert all("p00" in name for name in made.names[2:])
    assert len(set(made.names)) == MOST
    assert not made.fitted_here
    np.testing.assert_array_equal(made.parts[1].rgb, view.parts[5].rgb)
    for tokens, part in zip(made.features, made.parts, strict=True):
        np.testing.assert_array_equal(part.rgb, view.prism.split(tokens).rgb)
    assert build_message(made).header["stored"] == COUNT
    command = build_message(made, prism_path="x.safetensors").header["command"]
    assert command["input"] is None  # the command contains the names of the photos instead
    assert command["prism"] == "x.safetensors"
    # A photo that a search has found is added to the others.
    there = set(made.names)
    place = next(at for at, row in workshop.stored.rows() if row.name not in there)
    wait(workshop, session, shown_task(workshop.stored, range(1, MOST), [place], None))
    assert session.view.names[-1] not in there
    assert len(session.view) == MOST
    # Undo returns to the photos that were shown before.
    session.back(0)
    assert session.view.names == view.names
    for keep, add, draw, words in (
        ([99], [], None, "no such photo"),
        ([], [COUNT], None, "no such photo"),
        ([], [], None, "1 to 20 photos, not 0"),
        (range(MOST), [0, 1, 2], None, "1 to 20 photos, not 2"),
        ([], [], ("nothing like it", 0), "name that contains 'nothing like it'"),
    ):
        job = wait(workshop, session, shown_task(workshop.stored, keep, add, draw))
        assert words in job.error
    with pytest.raises(OptionError, match="not opened with a feature store"):
        shown_task(None, [], [0], None)
    other = replace(view, record=replace(view.record, name="other"))
    with pytest.raises(OptionError, match="has tokens of toy as it was opened"):
        workshop.stored.search(other, 0, 0, MASK, everywhere=True, tell=quiet)
    workshop.close()


class Running:
    """The server in a thread of this process, which starts quickly."""

    def __init__(self, view, out, monkeypatch):
        uvicorn = pytest.importorskip("uvicorn", reason="serving is an extra")
        startup = uvicorn.Server.startup

        async def noted(server, sockets=None):
            self.server = server
            await startup(server, sockets)

        monkeypatch.setattr(uvicorn.Server, "startup", noted)
        ready = queue.Queue()
        options = {"bound": listen("127.0.0.1", 0), "host": "127.0.0.1", "out": out, "ready": ready.put}
        workshop = Workshop(view, build_message(view).to_bytes(), None)
        self.thread = threading.Thread(target=serve, args=(workshop,), kwargs=options)
        self.thread.start()
        self.address = ready.get(timeout=20)
        self.host, self.port, self.token = re.match(r"http://([\d.]+):(\d+)/(.+)/", self.address).groups()

    def end(self):
        self.server.should_exit = True
        self.thread.join(timeout=20)


def test_the_page_shows_other_photos_and_searches_all(view, watch, tmp_path, small, monkeypatch):
    monkeypatch.setattr("patchprism.explorer.app.MAX_SHOWN", MOST)
    running = Running(view, tmp_path / "out", monkeypatch)
    try:
        watched = watch(running.address)
        page = watched.page
        assert page.locator("#stored .aside").inner_text() == "20 of 300"
        page.evaluate("patchprism.pin(3, 5)")
        pinned, before = page.evaluate(
            "[patchprism.model.photos[3].source, patchprism.model.photos.map((p) => p.source)]"
        )
        page.evaluate("patchprism.change({ threshold: 0.4, side: 'above' })")
        page.locator(".stored-search button").click()
        until(page, "document.querySelectorAll('.stored-search .crop').length === 24")
        # A photo that is not shown is added; the pin and the threshold do not change.
        crops = page.evaluate("""async () => {
          await Promise.all([...document.querySelectorAll(".stored-search .crop img")].map((image) => image.decode()));
          return [...document.querySelectorAll(".stored-search .crop .crop-name")].map((node) => node.textContent);
        }""")
        there = {name.rsplit("/", 1)[1] for name in before}
        fresh = next(i for i, name in enumerate(crops) if name not in there)
        page.locator(".stored-search .crop").nth(fresh).click()
        until(page, f"patchprism.model.photos.at(-1).name === '{crops[fresh]}' && !patchprism.working")
        state = page.evaluate(
            "[patchprism.model.photos.length, patchprism.model.photos[patchprism.state.pins[0].photo].source, "
            "patchprism.state.pins[0].index, patchprism.state.threshold]"
        )
        assert state == [MOST, pinned, 5, 0.4]
        assert page.locator(".stored-search .crop").count() == 24  # the results of the search stay
        # A photo chosen by its name.
        page.locator("#stored-find").fill("p000")
        page.locator("#stored-show").click()
        until(page, "patchprism.model.photos.length < 12 && !patchprism.working")
        names = page.evaluate("patchprism.model.photos.map((photo) => photo.source)")
        assert names[0] == pinned
        assert sum("p000" in name for name in names) == 10
        assert "--prism explored.prism.safetensors" in page.evaluate(
            "patchprism.showAddress(), document.getElementById('command').textContent"
        )
        session = "/api/sessions/" + page.evaluate("patchprism.server.session")
        wrong = {"photo": 999, "patch": 0, **MASK}
        assert ask(running, "POST", f"{session}/search", **as_json(wrong))[0] == 202
        end = time.monotonic() + 20
        while (job := ask(running, "GET", f"{session}/job")[1])["state"] != "failed":
            assert time.monotonic() < end
        assert job["error"] == "there is no such patch"
        for body in ({**wrong, "mask_side": "x"}, {"photo": -1}, {**wrong, "extra": 1}):
            assert ask(running, "POST", f"{session}/search", **as_json(body))[0] == 422
    finally:
        running.end()
