"""The slider for layers, in a real browser."""

from __future__ import annotations

import http.client
import json
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import patchprism
from patchprism.cli.app import app
from patchprism.support.arrays import to_uint8

MODEL, SIZE = "efficientnet_lite2", 160  # like the view in conftest.py
LAST, EARLIER = 20, 12


def until(page, expression):
    """Wait for an expression in the page; Playwright's method uses eval, which the page's policy forbids."""
    end = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not: {expression}"
        time.sleep(0.03)


def shows(page, layer):
    until(page, f"patchprism.model.header.layers.shown[0] === {layer} && !patchprism.working")


def undo(page, keys="Control+z"):
    page.keyboard.press(keys)
    until(page, "!patchprism.going && !patchprism.working")


def agrees(watched, parts, colors, layer="colors"):
    """Check the foreground's colours on the screen, up to rounding in the network."""
    watched.frame()
    for i, (part, rgb) in enumerate(zip(parts, colors, strict=True)):
        pixels = watched.canvas(i, layer)
        np.testing.assert_array_equal(pixels[..., 3] > 0, part.foreground)
        shown, expected = pixels[part.foreground][:, :3].astype(int), to_uint8(rgb[part.foreground])
        np.testing.assert_allclose(shown, expected.astype(int), atol=1)


@pytest.fixture(scope="module")
def cells(photo_files):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded model is an extra")
    found = patchprism.compare(photo_files, models=MODEL, layers=[LAST, EARLIER], size=SIZE)
    return found.cells


def test_the_slider_shows_another_layer_in_colours_that_agree(served, watch, cells):
    watched = watch(served.address)
    page = watched.page
    slider = page.locator("#layer")
    assert (slider.input_value(), slider.get_attribute("max")) == (str(LAST), str(LAST))
    page.mouse.click(*watched.patch_place(1, 3, 5))
    page.keyboard.press("Escape")
    page.evaluate(
        "patchprism.change({ opening: 1, closing: 1 }); patchprism.change({ opening: 0, closing: 0 })"
    )
    page.evaluate("patchprism.history.cut()")
    page.locator("#threshold").fill("0.31")
    page.evaluate(
        "document.querySelector('.tile').isTheSame = true; document.getElementById('gallery').scrollTop = 0"
    )
    before = page.evaluate("patchprism.state")
    slider.fill(str(EARLIER))
    shows(page, EARLIER)
    agrees(watched, cells[1].parts, cells[1].turned)
    turn = cells[1].turn
    words = page.locator("#turn-note").inner_text()
    assert f"Layer {EARLIER}: turned to agree with layer {LAST}. Residual {turn.residual:.2f};" in words
    assert (
        f"{turn.residual_shuffled:.2f} for shuffled patches and {turn.residual_shifted:.2f} for shifted"
        in words
    )
    until(
        page,
        "document.getElementById('command-note').textContent.includes('are turned to agree with layer 20')",
    )
    assert f"--layer={EARLIER}" in page.locator("#command").inner_text()
    # Everything is kept except the threshold, which belonged to the other fit; tiles are not created again.
    after = page.evaluate("patchprism.state")
    assert after["threshold"] == page.evaluate("patchprism.model.header.fit.threshold") != 0.31
    moved = ("threshold", "side", "fit")
    assert {k: v for k, v in after.items() if k not in moved} == {
        k: v for k, v in before.items() if k not in moved
    }
    assert len(after["pins"]) == 1
    assert page.evaluate("document.querySelector('.tile').isTheSame")
    # Colours as fitted, and other components than the turned ones.
    page.locator("#turned").uncheck()
    agrees(watched, cells[1].parts, [part.rgb for part in cells[1].parts])
    page.locator("#turned").check()
    page.evaluate("patchprism.change({ components: [1, 2, 4] })")
    watched.frame()
    assert "own colours, as fitted" in page.locator("#turn-note").inner_text()
    page.evaluate("patchprism.change({ components: [-2, 1, 3] })")
    watched.frame()
    pixels, rgb = watched.canvas(0), to_uint8(cells[1].turned[0])
    mask = cells[1].parts[0].foreground
    np.testing.assert_allclose(pixels[mask][:, 1].astype(int), rgb[mask][:, 0].astype(int), atol=1)
    np.testing.assert_allclose(pixels[mask][:, 0].astype(int), 255 - rgb[mask][:, 1].astype(int), atol=1)
    # Undo returns to the previous layer, and redo to this one.
    while page.evaluate("patchprism.state.fit") != before["fit"]:
        undo(page)
    shows(page, LAST)
    assert page.evaluate("patchprism.state") == before
    assert slider.input_value() == str(LAST)
    undo(page, "Control+Shift+z")
    shows(page, EARLIER)
    agrees(watched, cells[1].parts, cells[1].turned)
    # A reloaded tab shows the same.
    page.evaluate("patchprism.showAddress()")
    page.reload()
    page.wait_for_selector("html[data-ready=true]")
    agrees(watched, cells[1].parts, cells[1].turned)


def is_beside(watched, parts, colors):
    """Check the colours of B, which are black outside its foreground."""
    watched.frame()
    for i, (part, rgb) in enumerate(zip(parts, colors, strict=True)):
        pixels = watched.canvas(i, "second")
        expected = np.where(part.foreground[..., None], to_uint8(rgb), 0)
        np.testing.assert_allclose(pixels[..., :3].astype(int), expected.astype(int), atol=1)
        assert (pixels[..., 3] == 255).all()


def test_b_is_shown_beside_a_in_colours_turned_to_agree(served, watch, cells):
    watched = watch(served.address)
    page = watched.page
    note = page.locator("#second-note")
    page.mouse.click(*watched.patch_place(1, 3, 5))
    page.keyboard.press("Escape")
    page.evaluate("patchprism.history.cut()")
    alone = page.evaluate("patchprism.state")
    assert page.locator("#second-model option").first.inner_text() == "Nothing"
    page.locator("#second-model").select_option(MODEL)
    until(page, "document.getElementById('second-note').textContent.includes('Residual')")
    page.evaluate("patchprism.history.cut()")
    page.locator("#second-layer").fill(str(EARLIER))
    until(
        page, f"document.getElementById('second-note').textContent.startsWith('B, layer {EARLIER}: turned')"
    )
    turn = cells[1].turn
    assert f"to agree with A, layer {LAST}. Residual {turn.residual:.2f}; by chance" in note.inner_text()
    is_beside(watched, cells[1].parts, cells[1].turned)
    agrees(watched, cells[0].parts, cells[0].turned)
    labels = page.evaluate("[...document.querySelectorAll('.pane')].map((pane) => pane.dataset.label)")
    assert labels == [f"B · layer {EARLIER}", f"A · layer {LAST}"] * 3
    a, b = (page.locator(f".pane.{name}").first.bounding_box() for name in ("main", "side"))
    assert (a["x"], a["y"]) < (b["x"], b["y"])
    # A heat map for one patch in both, each from its own tokens.
    page.mouse.move(a["x"] + a["width"] / 2, a["y"] + a["height"] / 2)
    watched.frame()
    seen = page.evaluate(
        """() => ["main", "side"].map((name) => {
          const canvas = document.querySelector(`.pane.${name} .heat`);
          return [getComputedStyle(canvas).display, canvas.toDataURL()];
        })"""
    )
    assert [display for display, _ in seen] == ["block", "block"]
    assert seen[0][1] != seen[1][1]
    page.mouse.move(2, 600)
    # A shows another layer: B is turned to it, and so to the first fit, which has the layer of B.
    page.evaluate(f"patchprism.change({{ other: {{ model: '{MODEL}', layer: {LAST} }} }})")
    page.locator("#layer").fill(str(EARLIER))
    shows(page, EARLIER)
    until(page, f"document.getElementById('second-note').textContent.includes('A, layer {EARLIER}.')")
    until(page, f"document.getElementById('second-note').textContent.startsWith('B, layer {LAST}: turned')")
    is_beside(watched, cells[0].parts, cells[0].turned)
    agrees(watched, cells[1].parts, cells[1].turned)
    page.locator("#turned").uncheck()
    is_beside(watched, cells[0].parts, [part.rgb for part in cells[0].parts])
    page.locator("#turned").check()
    # Under B's colours there is no photo, except in an overlay.
    beside = "getComputedStyle(document.querySelector('.photo-beside')).visibility"
    for mode, seen in (("clusters", "hidden"), ("attention", "hidden"), ("overlay", "visible")):
        page.evaluate("mode => { document.querySelector('#gallery').dataset.mode = mode; }", mode)
        assert page.evaluate(beside) == seen, mode
    page.evaluate("document.querySelector('#gallery').dataset.mode = 'colours'")
    assert page.evaluate(beside) == "hidden"
    # With one photo, A is left of the divider and B is right of it.
    page.evaluate("patchprism.open(0)")
    watched.frame()
    clip = page.evaluate("getComputedStyle(document.querySelector('.pane.main')).clipPath")
    assert clip == "inset(0px 50% 0px 0px)"
    page.keyboard.press("Escape")
    page.locator("#swap").click()
    shows(page, LAST)
    until(
        page, f"document.getElementById('second-note').textContent.startsWith('B, layer {EARLIER}: turned')"
    )
    assert page.evaluate("patchprism.state.pins") == alone["pins"]
    # A link shows both, and undo returns to one.
    fragment = page.evaluate("patchprism.showAddress() ?? location.hash")
    assert f"other={MODEL}.{EARLIER}" in fragment
    while page.evaluate("patchprism.state.other !== null"):
        undo(page)
    shows(page, LAST)
    watched.frame()
    assert page.evaluate("patchprism.state") == alone
    assert page.locator("canvas.second").count() == 0
    assert page.evaluate("document.querySelector('.pane.main').dataset.label") is None
    assert page.locator("#second-model").input_value() == ""


@pytest.fixture(scope="module")
def carried(photo_files, cells, tmp_path_factory):
    """A single file with two layers."""
    path = tmp_path_factory.mktemp("page") / "layers.html"
    words = ["explore", *map(str, photo_files), "--model", MODEL, "--size", str(SIZE)]
    done = CliRunner().invoke(app, [*words, "--html", str(path), "--layers", str(EARLIER), "-q"])
    assert done.exit_code == 0, done.output
    return path


def test_a_file_contains_layers(carried, watch, cells):
    watched = watch(carried.as_uri())
    page = watched.page
    slider = page.locator("#layer")
    assert (slider.input_value(), slider.get_attribute("max")) == ("1", "1")
    assert page.locator("#second-model option").all_inner_texts() == ["Nothing", f"Another layer of {MODEL}"]
    page.mouse.click(*watched.patch_place(1, 3, 5))
    page.keyboard.press("Escape")
    before = page.evaluate("patchprism.state")
    slider.fill("0")
    until(page, f"patchprism.model.header.layers.shown[0] === {EARLIER}")
    agrees(watched, cells[1].parts, cells[1].turned)
    assert f"Residual {cells[1].turn.residual:.2f}; by chance" in page.locator("#turn-note").inner_text()
    assert page.evaluate("patchprism.state.pins") == before["pins"]
    page.locator("#second-model").select_option(MODEL)
    until(page, f"document.getElementById('second-note').textContent.startsWith('B, layer {LAST}: turned')")
    is_beside(watched, cells[0].parts, cells[0].turned)
    page.evaluate("patchprism.change({ threshold: 0.4 })")
    watched.frame()
    page.evaluate("patchprism.showAddress()")
    # Clusters are in the file for the layer that it opens with; the page says so.
    page.evaluate("patchprism.change({ mode: 'clusters' })")
    watched.frame()
    assert page.locator("#toast").inner_text() == f"This file has clusters for layer {LAST} only."
    assert page.evaluate("patchprism.state.mode") == "colours"
    page.evaluate("patchprism.undo()")
    watched.frame()
    # A link shows the same layer with its settings.
    link = page.evaluate("location.hash")
    other = watch(carried.as_uri() + link)
    shown = other.page.evaluate("patchprism.state")
    assert (shown["fit"], shown["threshold"], shown["other"]) == (
        EARLIER,
        0.4,
        {"model": MODEL, "layer": LAST},
    )
    until(other.page, "document.getElementById('second-note').textContent.includes('Residual')")
    other.page.evaluate("location.hash = '#'")
    until(other.page, f"patchprism.model.header.layers.shown[0] === {LAST}")
    other.page.evaluate("location.hash = '#other=nobody.2&fit=77'")  # a fit that the file does not contain
    until(other.page, "document.getElementById('second-note').textContent === 'B could not be computed.'")
    assert other.page.evaluate("patchprism.model.header.layers.shown[0]") == LAST
    while page.evaluate(f"patchprism.state.fit !== {LAST}"):
        undo(page)
    agrees(watched, cells[0].parts, cells[0].turned)
    assert page.evaluate("patchprism.state") == before
    assert watched.left_the_page("file://") == other.left_the_page("file://") == []


@pytest.mark.parametrize(
    ("layer", "told"),
    [(21, "no layer 21: layers are 0 to 20"), (-1, "layer"), (1.5, "layer"), ("2", "layer"), ([2], "layer")],
)
def test_a_missing_layer_is_refused(served, layer, told):
    def ask(method, path, body=None):
        connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
        connection.request(
            method, f"/{served.token}/api{path}", body, {"Content-Type": "application/json"} if body else {}
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    session = ask("POST", "/sessions")[1]["session"]
    status, answer = ask("POST", f"/sessions/{session}/fit", json.dumps({"layer": layer}))
    assert status == 422
    assert told in answer["error"]
    for path in ("turns/0/7", "turns/7/0", "message?fit=7"):
        status, answer = ask("GET", f"/sessions/{session}/{path}")
        assert status == 404
        assert "no longer kept" in answer["error"]
