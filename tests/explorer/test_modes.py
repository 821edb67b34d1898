"""Clusters and attention in the page equal the results of these lenses, in a single file and served."""

from __future__ import annotations

import json
import struct
import time

import numpy as np
import pytest
import threadpoolctl
import toys
from tests.explorer.conftest import Watched
from tests.explorer.test_served import ask, session  # noqa: F401 - the fixture

import patchprism
from patchprism.errors import ModelError, OptionError
from patchprism.explorer.build import build_message
from patchprism.explorer.html import ExplorerPage
from patchprism.explorer.modes import carry_modes, find_attention, find_clusters
from patchprism.explorer.tasks import attention_task, has_attention
from patchprism.explorer.work import Workshop
from patchprism.lenses import attention
from patchprism.pictures.sheet import heat


@pytest.fixture(scope="module")
def network():
    return toys.tiny_transformer()


@pytest.fixture(scope="module")
def seen(network, tmp_path_factory):
    folder = toys.make_photos(tmp_path_factory.mktemp("photos"), 3, shapes=((90, 120), (120, 90), (100, 100)))
    return patchprism.visualize(folder, backbone=network, size=112)


@pytest.fixture(scope="module")
def opened(seen, network, browser, tmp_path_factory):
    message = build_message(seen)
    carry_modes(message, seen, network)
    path = ExplorerPage(message).save(tmp_path_factory.mktemp("page") / "modes.html")
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    watched = Watched(context.new_page(), path.as_uri())
    yield watched
    context.close()
    assert watched.problems == []


def colors_of(arrays, name, palette):
    """The labels of each photo in colours of the palette, like in the lens."""
    colors = np.array([list(bytes.fromhex(each[1:])) for each in palette])
    return [colors[array[name]] for array in arrays]


def test_the_page_shows_the_clusters_of_the_lens_with_their_shares(opened, seen):
    page = opened.page
    opened.choose("mode", "clusters")
    for asked in ("auto", 4, 9):
        page.locator("#clusters").select_option(str(asked))
        opened.frame()
        found = seen.clusters(asked)
        for i, colors in enumerate(colors_of(found.arrays, "labels", found.report["colors"])):
            np.testing.assert_array_equal(opened.canvas(i)[..., :3], colors)
        shares = [round(100 * size / sum(found.report["sizes"])) for size in found.report["sizes"]]
        legend = page.locator("#cluster-legend li").all_inner_texts()
        assert [text.strip() for text in legend] == [f"{n}: {share} %" for n, share in enumerate(shares, 1)]
    # The shown command gives the same clusters.
    page.evaluate("patchprism.showAddress()")
    assert "--lens clusters --clusters 9" in page.locator("#command").inner_text()
    # With the pointer on a cluster, only this cluster stays bright.
    page.locator("#cluster-legend li button").nth(2).hover()
    opened.frame()
    labels = found.arrays[1]["labels"]
    dark = page.evaluate("""() => {
      const [canvas] = patchprism.gallery.tiles[1].layers.others;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return [...data.filter((_, i) => i % 4 === 3)];
    }""")
    np.testing.assert_array_equal(np.reshape(dark, labels.shape) == 0, labels == 2)
    page.mouse.move(5, 5)
    # A link contains the mode and the number, and undo reverts them.
    fragment = page.evaluate("location.hash")
    assert "m=clusters" in fragment
    assert "clusters=9" in fragment
    page.evaluate("patchprism.undo()")
    assert page.evaluate("patchprism.state.clusters") != 9


def test_the_page_shows_the_attention_of_the_lens(opened, seen, network):
    page = opened.page
    opened.choose("mode", "attention")
    opened.frame()
    found = seen.attention(layer=seen.settings["layer"], backbone=network)
    assert page.locator("#attention-bar").is_visible()
    for i, arrays in enumerate(found.arrays):
        mean = arrays["cls_mean"]
        np.testing.assert_array_equal(opened.canvas(i)[..., :3], heat(mean, 0.0, attention.top(mean)))
    fact = page.evaluate("patchprism.modeFact(1, patchprism.model.photos[1].start + 3)")
    assert float(fact.split()[1]) == pytest.approx(found.arrays[1]["cls_mean"].ravel()[3], rel=0.06)
    # Both can be columns of figures after they were shown.
    assert page.evaluate("Object.keys(patchprism.exporter.kinds())")[-2:] == ["clusters", "attention"]


def test_modes_that_a_page_lacks_are_not_offered(page_file, watch):
    # efficientnet_lite2 has no attention; a link that asks for it shows the colours.
    watched = watch(page_file.as_uri() + "#m=attention&clusters=99")
    watched.frame()
    assert watched.page.evaluate("[patchprism.state.mode, patchprism.state.clusters]") == ["colours", "auto"]
    assert not watched.page.locator("#mode-attention").is_visible()
    assert watched.page.locator("#mode-clusters").is_visible()
    watched.page.keyboard.press("5")
    watched.frame()
    assert watched.page.evaluate("patchprism.model.extra.clusters.length") == 3 * watched.page.evaluate(
        "patchprism.model.count"
    )


def unpacked(content, dtype):
    (length,) = struct.unpack_from("<I", content)
    return json.loads(content[4 : 4 + length]), np.frombuffer(content[4 + length :], dtype)


def test_the_server_answers_with_the_clusters_of_the_lens(served, session, view):  # noqa: F811
    for asked in ("auto", 5):
        status, content, _ = ask(served, "GET", f"{session}/clusters?count={asked}")
        assert status == 200
        info, labels = unpacked(content, "i1")
        found = view.clusters(asked)
        np.testing.assert_array_equal(labels, np.concatenate([a["labels"].ravel() for a in found.arrays]))
        assert info["count"] == found.report["clusters"]
    for asked in ("1", "13", "x", ""):
        assert ask(served, "GET", f"{session}/clusters?count={asked}")[0] == 422
    assert ask(served, "GET", session)[1]["attention"] is False
    # For a network without attention, the job fails with a message.
    assert ask(served, "GET", f"{session}/attention")[0] == 404
    assert ask(served, "POST", f"{session}/attention")[0] == 202
    end = time.monotonic() + 30
    while (job := ask(served, "GET", f"{session}/job")[1])["state"] != "failed":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert "attention" in job["error"]


def test_the_server_runs_the_network_for_attention(seen, network):
    workshop = Workshop(seen, build_message(seen).to_bytes(), network)
    session = workshop.session(workshop.open())  # noqa: F811
    assert has_attention(workshop, seen)
    job = workshop.queue(session, attention_task(workshop))
    end = time.monotonic() + 30
    while not job.over and time.monotonic() < end:
        time.sleep(0.01)
    assert job.state == "done", job.error
    weights, info = session.attention
    found = seen.attention(layer=seen.settings["layer"], backbone=network)
    np.testing.assert_array_equal(weights, np.concatenate([a["cls_mean"].ravel() for a in found.arrays]))
    assert info["layer"] == found.report["layer"]
    workshop.close()


def test_auto_gives_the_labels_of_its_number_and_libraries_are_looked_up_once(seen, monkeypatch):
    (auto, info), *numbered = find_clusters(seen, ["auto", *range(2, 13)])
    (chosen,) = [labels for labels, told in numbered if told["count"] == info["count"]]
    assert chosen is auto
    ((alone, _),) = find_clusters(seen, [info["count"]])
    np.testing.assert_array_equal(auto, alone)
    # Looking for the libraries whose threads are limited takes milliseconds: not for each photo and number again.
    looked = []
    known = threadpoolctl.ThreadpoolController.__init__
    monkeypatch.setattr(
        threadpoolctl.ThreadpoolController, "__init__", lambda self: looked.append(1) or known(self)
    )
    find_clusters(seen, ["auto", 2, 3])
    assert not looked


def test_modes_that_cannot_be_shown_are_refused(seen):
    flat = patchprism.visualize(features=np.ones((1, 3, 3, 8)), foreground="none")
    with pytest.raises(OptionError, match="clusters must be at most the number of different patches"):
        find_clusters(flat, [2])
    message = build_message(flat)
    carry_modes(message, flat)
    assert "clusters" not in message.header
    assert "clusters" not in message.parts
    # At most as many clusters as different patches.
    few = patchprism.visualize(features=np.eye(4).reshape(1, 2, 2, 4), foreground="none")
    message = build_message(few)
    carry_modes(message, few)
    assert message.header["clusters"]["counts"] == [2, 3, 4]
    with pytest.raises(ModelError, match="attention"):
        find_attention(seen, toys.Toy())
    with pytest.raises(OptionError, match="own features cannot be loaded by its name"):
        flat.explore(attention=True)
