"""Layout of the window, information about patches, and undo; all tests share one page."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import toys

import patchprism
from patchprism.features.finer import finer

SIZES = [(1280, 720), (1440, 900), (2560, 1440)]
SHAPES = [(60, 80), (90, 60), (64, 64), (60, 107), (80, 60), (48, 72)]


def made(count, seed=0):
    """Photos of several shapes, each with a bright square of noise on a dark ramp."""
    rng = np.random.default_rng(seed)
    photos = []
    for i in range(count):
        h, w = SHAPES[i % len(SHAPES)]
        photo = np.linspace(0, 90, w)[None, :, None] + np.zeros((h, 1, 3))
        photo[h // 4 : h // 2, w // 4 : w // 2] += rng.integers(
            60, 160, (h // 2 - h // 4, w // 2 - w // 4, 3)
        )
        photos.append(photo.astype(np.uint8))
    return photos


@pytest.fixture(scope="module")
def twelve():
    return patchprism.visualize(made(12), backbone=toys.Toy(), size=64)


@pytest.fixture(scope="module")
def page(browser, twelve, tmp_path_factory):
    path = twelve.explore().save(tmp_path_factory.mktemp("twelve") / "page.html")
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(5_000)
    problems = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(path.as_uri())
    opened.wait_for_selector("html[data-ready=true]")
    yield opened
    context.close()
    assert problems == []


@pytest.fixture
def app(page):
    """The page in its initial state."""
    page.set_viewport_size({"width": 1280, "height": 720})
    page.mouse.move(2, 2)
    page.evaluate("document.activeElement.blur()")
    page.evaluate("patchprism.put(structuredClone(patchprism.opening)); patchprism.history.clear()")
    page.evaluate("document.querySelectorAll('details.section').forEach((each) => { each.open = true; })")
    drawn(page)
    return page


def drawn(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def state(page, name):
    return page.evaluate(f"patchprism.state.{name}")


def change(page, **patch):
    page.evaluate("(patch) => patchprism.change(patch)", patch)
    drawn(page)


def place(page, photo, row, column, pane="marks"):
    box = page.locator(f".frame[data-photo='{photo}'] .{pane}").bounding_box()
    h, w = page.evaluate(f"patchprism.model.photos[{photo}].grid")
    return box["x"] + (column + 0.5) / w * box["width"], box["y"] + (row + 0.5) / h * box["height"]


# Share of the window, without the panel, that the visible panes cover.
SHARE = """() => {
  const panes = [...document.querySelectorAll(".pane")].filter((pane) => pane.offsetWidth);
  const frames = new Map();
  let [area, out] = [0, 0];
  for (const pane of panes) {
    const box = pane.getBoundingClientRect();
    const split = pane.closest(".tile").dataset.fold === "split";
    if (!split || pane.classList.contains("main")) area += box.width * box.height;
    const window = document.querySelector(".photos").getBoundingClientRect();
    if (box.bottom > innerHeight + 1 || box.right > window.right + 1) out++;
  }
  return { share: area / (document.querySelector(".photos").offsetWidth * innerHeight), out,
    scrolls: document.documentElement.scrollHeight > innerHeight };
}"""


def test_one_to_twelve_photos_fill_three_windows(app):
    for width, height in SIZES:
        app.set_viewport_size({"width": width, "height": height})
        for count in range(1, 13):
            change(app, hidden=list(range(count, 12)))
            found = app.evaluate(SHARE)
            assert found["share"] >= 0.55, (width, count, found)
            assert not found["out"], (width, count)
            assert not found["scrolls"]
            assert app.locator(".tile").count() == count


def test_larger_photos_scroll_and_come_in_the_order_that_was_chosen(app, twelve):
    before = app.locator(".pane.main").first.bounding_box()["width"]
    app.locator("#size").fill("4")
    drawn(app)
    assert app.locator(".pane.main").first.bounding_box()["width"] > 1.3 * before
    assert app.evaluate("(board) => board.scrollHeight > board.clientHeight", app.query_selector(".board"))
    app.locator("#sort").select_option("share")
    drawn(app)
    shares = [part.foreground.mean() for part in twelve.parts]
    order = app.locator(".frame").evaluate_all("frames => frames.map((frame) => Number(frame.dataset.photo))")
    assert order == sorted(range(12), key=lambda i: (-shares[i], i))
    app.locator("#sort").select_option("given")
    change(app, size=1)
    app.locator(".tile").nth(3).hover()
    app.get_by_label("Hide photo-4").click()
    drawn(app)
    assert app.locator(".tile").count() == 11
    assert app.locator("#show-all").inner_text() == "Show 1 hidden"
    app.locator("#show-all").click()
    drawn(app)
    assert app.locator(".tile").count() == 12


def test_one_photo_fills_the_window(app):
    app.mouse.dblclick(*place(app, 2, 2, 2))
    drawn(app)
    assert state(app, "single") == 2
    assert state(app, "pins") == []  # the pin of the first click is removed
    assert app.locator(".tile").count() == 1
    assert app.locator("#panel").is_hidden()
    frame = app.locator(".frame").bounding_box()
    assert frame["height"] > 0.85 * 720
    # The divider is dragged or moved with keys.
    box = app.locator(".divide").bounding_box()
    app.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    app.mouse.down()
    app.mouse.move(frame["x"] + 0.25 * frame["width"], box["y"] + 40, steps=3)
    app.mouse.up()
    assert state(app, "divide") == pytest.approx(0.25, abs=0.01)
    clip = app.locator(".pane.main").evaluate("pane => getComputedStyle(pane).clipPath")
    assert float(clip.split("%")[0].split()[-1]) == pytest.approx(25, abs=1)
    # Arrow keys go to the next photo, and with Shift, they move over its patches.
    app.locator(".frame").focus()
    app.keyboard.press("ArrowRight")
    assert state(app, "single") == 3
    app.keyboard.press("Shift+ArrowDown")
    app.wait_for_timeout(150)
    assert app.locator("#readout").inner_text().startswith("photo-4")
    app.keyboard.press("ArrowLeft")
    app.keyboard.press("ArrowLeft")
    assert state(app, "single") == 1
    app.keyboard.press("Escape")
    drawn(app)
    assert state(app, "single") is None
    app.locator(".frame").nth(5).focus()
    app.keyboard.press("Enter")
    assert state(app, "single") == 5


def test_the_open_photos_colours_can_follow_its_edges(app, twelve, modules, tmp_path):
    change(app, single=0, guided=True)
    canvas = app.locator("canvas.colors-crisp")
    assert canvas.count() == 1
    assert canvas.evaluate("canvas => canvas.width") > app.evaluate("patchprism.model.photos[0].grid[1]")
    change(app, guided=False)
    assert canvas.count() == 0
    # The filter equals Python's.
    rng = np.random.default_rng(0)
    values = rng.random((5, 7, 4)).astype(np.float32)
    cells = rng.integers(90, 160, (40, 56, 3), np.uint8)
    photo = cells.repeat(2, 0).repeat(2, 1)  # so that means are whole numbers
    rgba = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    asked = {"values": values.ravel().tolist(), "rgba": rgba.ravel().tolist()}
    (tmp_path / "in.json").write_text(json.dumps(asked))
    script = """
    import { readFileSync } from "node:fs";
    import { doublingsFor, finer, guidesOf } from "./finer.mjs";
    const { values, rgba } = JSON.parse(readFileSync(process.argv[2], "utf-8"));
    const guides = guidesOf(rgba, [80, 112], [5, 7], doublingsFor([80, 112], [5, 7]));
    console.log(JSON.stringify(Array.from(finer(values, [5, 7], 4, guides))));
    """
    got = np.array(json.loads(modules(script, tmp_path / "in.json"))).reshape(40, 56, 4)
    expected = finer(values, photo, (0, 0, 112, 80))
    assert np.abs(got - expected).max() < 1e-4


def test_outlines_keep_their_width_and_do_not_cover_the_patch(app):
    app.mouse.click(*place(app, 0, 2, 3))
    for zoom in (1, 8):
        change(app, zoom=zoom, panX=0.4, panY=0.3)
        app.mouse.move(*place(app, 1, 2, 2))
        drawn(app)
        marks = app.evaluate("""() => [
          ...document.querySelectorAll(".tile .pin, .tile .match, .cursor[visibility=visible]"),
        ].flatMap((group) => {
          const svg = group.closest("svg");
          const [, , w, h] = svg.getAttribute("viewBox").split(" ").map(Number);
          const box = svg.getBoundingClientRect();
          return [...group.children].map((rect) => {
            const style = getComputedStyle(rect);
            const drawn = rect.getBoundingClientRect(); // without its stroke
            return { stroke: parseFloat(style.strokeWidth), effect: style.vectorEffect, fill: style.fill,
              inner: drawn.width - parseFloat(style.strokeWidth), patch: box.width / w };
          });
        })""")
        assert len(marks) >= 8
        assert all(mark["stroke"] <= 5 and mark["effect"] == "non-scaling-stroke" for mark in marks)
        assert all(mark["fill"] == "none" for mark in marks)
        for mark in marks:  # the area inside the outline is the patch
            assert mark["inner"] == pytest.approx(mark["patch"], abs=0.6)


def test_at_most_five_lines_are_drawn_with_their_cosines(app, twelve):
    app.mouse.click(*place(app, 0, 5, 6))
    drawn(app)
    lines = app.locator("#lines line").count()
    assert 1 <= lines <= 5
    assert app.locator("#lines .casing").count() == app.locator("#lines .cosine").count() == lines
    links = app.evaluate("""() => {
      const { model, state } = patchprism;
      return model.matches(state.pins[0]).map((match) => [match.patch, match.value, model.mask[match.patch]]);
    }""")
    assert all(kept for _, _, kept in links)
    assert [value for _, value, _ in links] == sorted((value for _, value, _ in links), reverse=True)
    told = sorted(app.locator("#lines .cosine").evaluate_all("all => all.map((each) => each.textContent)"))
    assert told == sorted(f"{value:.2f}" for _, value, _ in links[:5])
    app.locator("#everywhere").click()
    drawn(app)
    everywhere = app.evaluate("patchprism.model.matches(patchprism.state.pins[0], true).length")
    assert everywhere == 11


def test_the_readout_equals_pythons_values(app, twelve):
    app.mouse.click(*place(app, 1, 2, 3))
    app.mouse.move(*place(app, 0, 1, 2))
    app.wait_for_timeout(150)
    text = app.locator("#readout").inner_text()
    part = twelve.parts[0]
    w = part.score.shape[1]
    components = twelve.prism.object_components(twelve.features[0].reshape(-1, twelve.features.width))
    assert "photo-1" in text
    assert "row 2, column 3" in text
    assert f"score {part.score[1, 2]:.2f}" in text
    assert ("foreground" if part.foreground[1, 2] else "background") in text
    assert "  ".join(f"{value:.2f}".replace("-", "−") for value in components[w + 2][:3]) in text
    a, b = (twelve.features[i][at] for i, at in ((0, (1, 2)), (1, (2, 3))))
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    told = float(text.split("cosine to pin 1: ")[1].split()[0].replace("−", "-"))
    assert told == pytest.approx(cosine, abs=0.035)
    # The readout never covers its patch.
    x, y = place(app, 0, 1, 2)
    box = app.locator("#readout").bounding_box()
    assert not (box["x"] <= x <= box["x"] + box["width"] and box["y"] <= y <= box["y"] + box["height"])
    # Nor over the controls, even where it appears at the right end of the photos.
    app.mouse.move(5, 795)
    drawn(app)
    assert app.locator("#readout").is_hidden()
    rightmost = max(app.locator(".frame").all(), key=lambda frame: frame.bounding_box()["x"])
    right = rightmost.bounding_box()
    app.mouse.move(right["x"] + right["width"] - 3, right["y"] + right["height"] - 3)
    drawn(app)
    box, photos = app.locator("#readout").bounding_box(), app.locator(".photos").bounding_box()
    assert box["x"] + box["width"] <= photos["x"] + photos["width"]
    # With keys, screen readers announce it too.
    app.locator(".frame").nth(4).focus()
    app.keyboard.press("ArrowLeft")
    drawn(app)
    spoken = app.locator("#live").inner_text()
    for words in ("row ", "score ", "components ", "colour #", "cosine to pin 1", "Best matches"):
        assert words in spoken


def test_the_heat_map_is_on_the_photo_and_a_click_keeps_it(app):
    def heat_in(photo):
        return app.locator(f".frame[data-photo='{photo}'] canvas.heat").evaluate(
            "canvas => [canvas.closest('.pane').className, getComputedStyle(canvas).display]"
        )

    app.mouse.move(*place(app, 0, 1, 1))
    drawn(app)
    assert heat_in(0) == ["pane side", "block"]
    assert (
        app.locator(".frame[data-photo='0'] canvas.colors").evaluate("c => getComputedStyle(c).visibility")
        == "visible"
    )
    app.mouse.click(*place(app, 0, 1, 1))
    app.mouse.move(2, 2)
    drawn(app)
    assert heat_in(3) == ["pane side", "block"]
    pixels = (
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"
    )
    held = app.locator("canvas.heat").nth(2).evaluate(pixels)
    app.locator("#heat-low").fill("0.5")
    app.locator("#heat-low").press("Tab")
    drawn(app)
    assert state(app, "heatRange") == [0.5, 1]
    assert app.locator("canvas.heat").nth(2).evaluate(pixels) != held
    app.locator("#heat-low").fill("2")  # an invalid value does not change the range
    app.locator("#heat-low").press("Tab")
    assert state(app, "heatRange") == [0.5, 1]
    app.locator(".frame").first.focus()
    app.keyboard.press("Escape")  # this releases the heat map without deleting anything
    drawn(app)
    assert heat_in(3)[1] == "none"
    assert len(state(app, "pins")) == 1
    change(app, beside=False)
    app.mouse.move(*place(app, 0, 1, 1))
    drawn(app)
    assert heat_in(0) == ["pane main", "block"]


def test_everything_that_changes_the_view_can_be_undone(app):
    first = app.evaluate("patchprism.state")
    assert app.locator("#undo").is_disabled()
    states = [first]

    def did(action):
        app.evaluate("patchprism.history.cut()")
        action()
        drawn(app)
        states.append(app.evaluate("patchprism.state"))
        assert states[-1] != states[-2]

    did(lambda: app.locator("input[name=mode][value=overlay]").click())
    did(lambda: app.locator("#threshold").fill("0.3"))
    did(lambda: app.locator("#component-red").select_option("3"))
    did(lambda: app.mouse.click(*place(app, 0, 1, 1)))
    did(lambda: app.locator("#clear-pins").click())
    did(lambda: app.locator("#zoom-in").click())
    did(lambda: app.locator("input[name=basis][value=all]").click())
    did(lambda: app.locator("#sort").select_option("share"))
    for before in reversed(states[:-1]):
        app.keyboard.press("Control+z")
        drawn(app)
        assert app.evaluate("patchprism.state") == before
    app.keyboard.press("Control+z")
    drawn(app)
    assert app.locator("#toast").inner_text() == "Nothing to undo."
    for after in states[1:]:
        app.keyboard.press("Control+Shift+z")
        drawn(app)
        assert app.evaluate("patchprism.state") == after
    app.locator("#undo").click()
    change(app, alpha=0.2)  # a change after undo removes the steps that could be redone
    assert app.locator("#redo").is_disabled()


def test_a_drag_is_one_change(app):
    box = app.locator("#histogram").bounding_box()
    app.mouse.move(box["x"] + 40, box["y"] + 20)
    app.mouse.down()
    app.mouse.move(box["x"] + 180, box["y"] + 20, steps=8)
    app.mouse.up()
    drawn(app)
    assert app.evaluate("patchprism.history.past.length") == 1
    app.keyboard.press("Control+z")
    assert state(app, "threshold") == app.evaluate("patchprism.opening.threshold")


def test_the_ninth_pin_is_refused_with_a_message(app):
    for i in range(9):
        app.mouse.click(*place(app, i, 1, 1))
        app.wait_for_timeout(1)
    drawn(app)
    assert [pin["photo"] for pin in state(app, "pins")] == list(range(8))
    assert (
        app.locator("#toast").inner_text()
        == "There are already 8 pins, which is the maximum. Remove one first."
    )
    assert app.locator("#clear-pins").inner_text() == "Clear 8 pins"


def test_keys_keep_the_patch_in_view_and_move_a_zoomed_photo(app):
    change(app, zoom=6, panX=0.5, panY=0.5)
    app.locator(".frame").first.focus()
    for _ in range(12):
        app.keyboard.press("ArrowRight")
        app.keyboard.press("ArrowDown")
    drawn(app)
    cursor = app.locator(".frame").first.locator(".marks .cursor .line").bounding_box()
    pane = app.locator(".frame").first.locator(".pane.main").bounding_box()
    assert pane["x"] <= cursor["x"] + cursor["width"] / 2 <= pane["x"] + pane["width"]
    assert pane["y"] <= cursor["y"] + cursor["height"] / 2 <= pane["y"] + pane["height"]
    before = state(app, "panX")
    app.keyboard.press("Shift+ArrowLeft")
    assert state(app, "panX") < before


def test_a_threshold_that_leaves_nothing_gives_a_message_and_scores_have_a_bar(app):
    assert app.locator("#nothing").is_hidden()
    change(app, threshold=1, side="above")
    assert "No patch is kept" in app.locator("#nothing").inner_text()
    app.locator("#reset-threshold").click()
    drawn(app)
    assert app.locator("#nothing").is_hidden()
    assert app.locator("#score-bar").is_hidden()
    app.keyboard.press("4")
    drawn(app)
    assert app.locator("#score-bar").is_visible()


def test_the_panel_collapses_sections_in_a_small_window(app):
    app.evaluate("""() => {
      document.querySelectorAll("details.section").forEach((each) => { each.open = !each.hidden; });
    }""")
    app.reload()
    app.wait_for_selector("html[data-ready=true]")
    fits = app.evaluate(
        "(panel) => panel.scrollHeight <= panel.clientHeight + 1", app.query_selector("#panel")
    )
    assert fits
    assert app.locator("#foreground").evaluate("section => section.open")
    app.locator("#leave > summary").click()
    assert app.locator("#copy").is_visible()


def test_words(app):
    text = app.locator("#panel").evaluate("panel => panel.textContent").replace("\n", " ")
    for words in (
        "Export",
        "Download prism (reuse these colours)",
        "All images (.zip)",
        "Flip",
        "Foreground score",
        "Keep:",
        "high",
        "low",
        "everything",
        "PCA of:",
        "foreground",
        "whole image",
        "Remove specks",
    ):
        assert words in text
    patches = sum(h * w for h, w in app.evaluate("patchprism.model.photos.map((photo) => photo.grid)"))
    assert f"{patches:,} patches × " in text
    assert " dims" in text
    app.locator("#opening").fill("2")
    drawn(app)
    assert app.locator("#opening-value").inner_text() == "radius 2"
    app.mouse.click(*place(app, 0, 1, 1))
    drawn(app)
    assert app.locator("#clear-pins").inner_text() == "Clear 1 pin"


def test_on_a_phone_the_photo_stays_in_view_above_the_controls(browser, twelve, tmp_path):
    path = patchprism.visualize(made(2), backbone=toys.Toy(), size=64).explore().save(tmp_path / "p.html")
    context = browser.new_context(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert page.locator("#foreground").is_hidden() or page.locator("#panel").bounding_box()["height"] == 0
    page.locator("#sheet").tap()
    drawn(page)
    panel, frame = page.locator("#panel").bounding_box(), page.locator(".frame").first.bounding_box()
    assert panel["height"] > 250
    assert panel["y"] > 300
    assert frame["y"] >= 0
    assert frame["y"] + frame["height"] < panel["y"]
    # A tap shows the heat map, a long press pins.
    x, y = place(page, 0, 1, 1)
    page.touchscreen.tap(x, y)
    drawn(page)
    assert page.locator("#gallery").evaluate("node => node.classList.contains('heating')")
    assert page.evaluate("patchprism.state.pins.length") == 0
    box = page.locator("#readout").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    # Names have room beside the tools, of which small tiles have one.
    page.locator("#sheet").tap()
    drawn(page)
    tools = []
    for width in (390, 150, 110):
        page.set_viewport_size({"width": width, "height": 780})
        drawn(page)
        tools.append(page.locator(".tile").first.locator(".tools button:visible").count())
        assert page.locator(".name").first.bounding_box()["width"] > 25
    assert tools == [3, 1, 0]
    page.set_viewport_size({"width": 390, "height": 780})
    page.locator("#sheet").tap()
    drawn(page)
    x, y = place(page, 0, 1, 1)
    touch = context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    end = time.monotonic() + 5
    while not page.evaluate("patchprism.state.pins.length") and time.monotonic() < end:
        page.wait_for_timeout(50)
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert page.evaluate("patchprism.state.pins.length") == 1
    context.close()


def test_many_photos_have_a_strip_of_matches_instead_of_lines(browser, tmp_path):
    path = patchprism.visualize(made(14), backbone=toys.Toy(), size=64).explore().save(tmp_path / "p.html")
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    page.evaluate("patchprism.change({ pins: [{ photo: 0, index: 7 }] })")
    drawn(page)
    assert page.locator("#lines line").count() == 0
    crops = page.locator(".strip .crop").evaluate_all(
        "all => all.map((each) => each.getAttribute('aria-label'))"
    )
    assert len(crops) >= 2
    cosines = [float(each.rsplit(" ", 1)[1]) for each in crops]
    assert cosines == sorted(cosines, reverse=True)
    context.close()


def test_a_damaged_file_shows_a_message_instead_of_controls(browser, twelve, tmp_path):
    page = browser.new_page()
    html = twelve.explore().html
    start = html.index('id="message-data">') + 20_000
    (tmp_path / "cut.html").write_text(html[:start] + html[start + 4_000 :], "utf-8")
    page.goto((tmp_path / "cut.html").as_uri())
    page.wait_for_selector("html[data-ready=failed]")
    assert "damaged" in page.locator("body").inner_text()
    assert page.locator("button:visible").count() == 0
    page.close()
