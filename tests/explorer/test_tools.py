"""The page's tools in a real browser: scatter plot, figures and archives, teaching. All tests share one page."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from tests.explorer.conftest import Watched

import patchprism
from patchprism.support.arrays import to_uint8


@pytest.fixture(scope="module")
def shared(browser, page_file):
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    watched = Watched(context.new_page(), page_file.as_uri())
    yield watched
    context.close()
    assert watched.problems == []


@pytest.fixture
def opened(shared, page_file):
    """The page in its initial state, whatever the previous test did."""
    shared.page.evaluate("""() => {
      for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
      patchprism.setTool(null);
      patchprism.change({ ...structuredClone(patchprism.opening), pins: [], held: null });
      patchprism.history.clear();
      patchprism.scatter.choose(null);
      for (const id of ["scatter-3d", "scatter-background"]) {
        if (document.getElementById(id).checked) document.getElementById(id).click();
      }
      const shown = ["scatter", "teach", "leave"];
      for (const section of document.querySelectorAll("#panel details")) section.open = shown.includes(section.id);
    }""")
    shared.frame()
    yield shared
    assert shared.left_the_page(page_file.as_uri()) == []


def downloaded(watched, action):
    with watched.page.expect_download() as waiting:
        action()
    with open(waiting.value.path(), "rb") as file:
        return waiting.value.suggested_filename, file.read()


def place_of(watched, photo, row, column):
    """Position of a patch of a photo on the screen."""
    box = watched.page.evaluate(
        f"patchprism.gallery.tiles[{photo}].main.marks.getBoundingClientRect().toJSON()"
    )
    h, w = watched.page.evaluate(f"patchprism.model.photos[{photo}].grid")
    return box["x"] + (column + 0.5) / w * box["width"], box["y"] + (row + 0.5) / h * box["height"]


# ---------------------------------------------------------------- scatter


def points_of(watched):
    """X and y of all points."""
    found = watched.page.evaluate("[[...patchprism.scatter.field.x], [...patchprism.scatter.field.y]]")
    return np.array(found[0]), np.array(found[1])


def drawn_in(watched):
    """The visible points: pixels with a point, its index, and the colour there (RGBA)."""
    found = watched.page.evaluate("""() => {
      const { field, canvas } = patchprism.scatter;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const words = new Uint32Array(data.buffer);
      const at = [...field.ids.keys()].filter((i) => field.ids[i] >= 0);
      const all = words.filter((word) => word).length;
      return { at, ids: at.map((i) => field.ids[i]), words: at.map((i) => words[i]), all };
    }""")
    colors = np.array(found["words"], "<u4").view(np.uint8).reshape(-1, 4)
    return np.array(found["at"]), np.array(found["ids"]), colors, found["all"]


def scatter_place(watched, x, y):
    box = watched.page.locator(".points").bounding_box()
    side = watched.page.evaluate("patchprism.scatter.field.width")
    return box["x"] + x / side * box["width"], box["y"] + y / side * box["height"]


def test_the_scatter_shows_all_patches_in_their_colours(opened, view, explored):
    x, y = points_of(opened)
    codes = explored.message.array("components")[len(explored.message.header["scene"]["step"]) :]
    first, second = (codes[k] * explored.message.header["object"]["step"][k] for k in (0, 1))
    # All points are at their components, to the right and up.
    assert np.corrcoef(first, x)[0, 1] > 0.9999
    assert np.corrcoef(second, -y)[0, 1] > 0.9999
    foreground = np.concatenate([part.foreground.ravel() for part in view.parts])
    colors = np.concatenate([to_uint8(part.rgb).reshape(-1, 3) for part in view.parts])
    at, ids, shown, total = drawn_in(opened)
    drawn = np.unique(ids)
    assert foreground[drawn].all()
    assert len(drawn) > 0.5 * foreground.sum()
    np.testing.assert_array_equal(shown[:, :3], colors[ids])
    assert (shown[:, 3] == 255).all()
    assert total == len(at)
    opened.page.locator("#scatter-background").click()
    assert not foreground[np.unique(drawn_in(opened)[1])].all()


def test_a_lasso_lights_up_patches_in_all_photos(opened, view):
    page = opened.page
    x, _y = points_of(opened)
    foreground = np.concatenate([part.foreground.ravel() for part in view.parts])
    edge = float(np.median(x[foreground])) + 0.25
    side = page.evaluate("patchprism.scatter.field.width")
    page.mouse.move(*scatter_place(opened, edge, 1))
    page.mouse.down()
    for corner in ((1, 1), (1, side - 1), (edge, side - 1)):
        page.mouse.move(*scatter_place(opened, *corner), steps=3)
    page.mouse.up()
    opened.frame()
    chosen = np.array(page.evaluate("[...patchprism.scatter.chosen]"), bool)
    inside = foreground & (x < edge)
    clear = np.abs(x - edge) > 1.5  # a mouse moves by whole pixels
    np.testing.assert_array_equal(chosen[clear], inside[clear])
    assert 0.3 * foreground.sum() < chosen.sum() < 0.7 * foreground.sum()
    start = 0
    for photo, part in enumerate(view.parts):
        shade = np.array(
            page.evaluate(
                """(photo) => patchprism.gallery.tiles[photo].layers.chosen.map((canvas) => {
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              return [...data.filter((_, i) => i % 4 === 3)];
            })""",
                photo,
            )
        )
        expected = chosen[start : start + part.score.size]
        for pane in shade:  # the photo and its colours side by side
            np.testing.assert_array_equal(pane == 0, expected)
        start += part.score.size
    assert f"{chosen.sum()} patches in" in page.locator("#scatter .aside").inner_text()
    page.locator("#scatter-teach").click()
    assert marks_of(opened) == [(patch, 1) for patch in np.flatnonzero(chosen)]
    assert page.evaluate("patchprism.scatter.chosen") is None
    assert page.evaluate("patchprism.gallery.tiles[0].layers.chosen ?? null") is None


def test_patches_and_points_are_marked_together(opened):
    page = opened.page
    page.mouse.move(*place_of(opened, 1, 4, 5))
    opened.frame()
    start, w = page.evaluate("[patchprism.model.photos[1].start, patchprism.model.photos[1].grid[1]]")
    patch = start + 4 * w + 5
    assert page.evaluate("patchprism.scatter.over") == patch
    x, y = points_of(opened)
    ring = page.evaluate(
        """([x, y]) => {
      const context = patchprism.scatter.marks.getContext("2d");
      return [...context.getImageData(Math.round(x - 6), Math.round(y), 1, 1).data];
    }""",
        [float(x[patch]), float(y[patch])],
    )
    assert ring[3] > 200
    # Vice versa: with the pointer on a point, its patch has the cursor.
    at, ids, _, _ = drawn_in(opened)
    other = int(np.unique(ids)[7])
    side = page.evaluate("patchprism.scatter.field.width")
    where = int(at[ids == other][0])
    page.mouse.move(*scatter_place(opened, where % side + 0.5, where // side + 0.5))
    opened.frame()
    assert page.evaluate("patchprism.hovered.patch") == other
    photo = page.evaluate(f"patchprism.model.photoOf({other})")
    assert page.locator(".cursor[visibility=visible]").count() >= 1
    assert page.evaluate("patchprism.hovered.photo") == photo


def test_three_components_turn_by_mouse_and_keys(opened):
    page = opened.page
    assert page.locator("#scatter-note").inner_text().startswith("Drag around points to highlight")
    page.locator("#scatter-3d").click()
    opened.frame()
    assert page.locator("#scatter-note").inner_text().startswith("Drag to turn the points; with Lasso, ")
    before = points_of(opened)[0]
    side = page.evaluate("patchprism.scatter.field.width")
    page.mouse.move(*scatter_place(opened, side / 2, side / 2))
    page.mouse.down()
    page.mouse.move(*scatter_place(opened, side / 2 + 80, side / 2), steps=3)
    page.mouse.up()
    opened.frame()
    turned = points_of(opened)[0]
    assert np.abs(turned - before).max() > 5
    assert page.evaluate("patchprism.scatter.chosen") is None  # turning is not a lasso
    page.locator(".points").focus()
    page.keyboard.press("ArrowLeft")
    opened.frame()
    assert np.abs(points_of(opened)[0] - turned).max() > 1
    assert "component 1, component 2, component 3" in page.locator(".points").get_attribute("aria-label")


# ---------------------------------------------------------------- figures and archives


def figure(watched, **settings):
    """Save a figure with some settings of the dialog."""
    page = watched.page
    page.locator("#export-figure").click()
    for index, kind in enumerate(page.locator("#export-panels input").all()):
        kind.set_checked(index < 2 or index > 3)  # photo, colours and pins
    for name, value in settings.items():
        control = page.locator(f"#export-{name}")
        if isinstance(value, bool):
            control.set_checked(value)
        elif name in ("format", "paper", "unit"):
            control.select_option(value)
        else:
            control.fill(str(value))
    page.wait_for_function("() => !document.querySelector('#export button[type=submit]').disabled")
    return downloaded(watched, lambda: page.locator("#export button[type=submit]").click())


def test_a_figure_has_the_size_the_resolution_and_the_colours_asked_for(opened, view):
    name, content = figure(
        opened,
        format="png",
        unit="mm",
        width=127,
        dpi=200,
        paper="transparent",
        labels=False,
        **{"per-row": 3},
    )
    assert name == "figure.png"
    image = Image.open(io.BytesIO(content))
    assert image.mode == "RGBA"
    assert image.width == 1000
    assert image.info["dpi"] == pytest.approx((200, 200), abs=0.02)
    assert image.info["Comment"].startswith("patchprism render ")
    assert "Principal components 1, 2 and 3" in image.info["Description"]
    pixels = np.asarray(image)
    layout = opened.page.evaluate("""async () => {
      const { exporter } = patchprism;
      const { items } = await exporter.scene({ ...exporter.settings(), dpi: 200 }, false);
      return items.map(({ pixels, ...item }) => item);
    }""")
    colours = [item for item in layout if item["kind"] == "image"][1::2]
    for part, size, item in zip(view.parts, view.sizes, colours, strict=True):
        left, top = (round(item[edge] * 200 / 72) for edge in ("x", "y"))
        panel = pixels[top : top + item["rows"], left : left + item["columns"]]
        shape = panel.shape[:2]
        assert shape[0] / shape[1] == pytest.approx(size[0] / size[1], rel=0.02)
        # Each patch has its colour at its centre, and the background is transparent.
        h, w = part.score.shape
        index = view.sizes.index(size)
        crop = view.crops[index]
        rows = ((crop[1] + (np.arange(h) + 0.5) * (crop[3] - crop[1]) / h) * shape[0] / size[0]).astype(int)
        columns = ((crop[0] + (np.arange(w) + 0.5) * (crop[2] - crop[0]) / w) * shape[1] / size[1]).astype(
            int
        )
        shown = panel[rows][:, columns]
        np.testing.assert_array_equal(shown[..., 3] == 255, part.foreground)
        np.testing.assert_array_equal(shown[part.foreground][:, :3], to_uint8(part.rgb[part.foreground]))


def pdf_objects(content):
    """The objects of a PDF from its table, as (dictionary, bytes) with decompressed streams."""
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", content)[1])
    assert content[start : start + 5] == b"xref\n"
    places = [int(place) for place in re.findall(rb"(\d{10}) 00000 n ", content[start:])]
    found = []
    for number, place in enumerate(places, 1):
        begin = f"{number} 0 obj\n".encode()
        assert content[place : place + len(begin)] == begin
        end = content.index(b"\nendobj\n", place)
        body = content[place + len(begin) : end]
        dictionary, stream = body, b""
        if (length := re.search(rb"/Length (\d+) >>\nstream\n", body)) is not None:
            dictionary = body[: length.end()]
            raw = content[place + len(begin) + length.end() :][: int(length[1])]
            stream = zlib.decompress(raw)
        found.append((dictionary.decode("latin-1"), stream))
    return found


def test_a_pdf_contains_the_panels_the_texts_and_the_command(opened, tmp_path):
    page = opened.page
    page.mouse.click(*place_of(opened, 0, 4, 6))
    opened.frame()
    name, content = figure(opened, format="pdf", unit="in", width=6.75, dpi=150, paper="white", labels=True,
                           **{"with-caption": True, "pins": True, "per-row": 1})  # fmt: skip
    assert name == "figure.pdf"
    assert content.startswith(b"%PDF-1.5\n")
    objects = pdf_objects(content)
    images = [each for each in objects if "/Subtype /Image" in each[0]]
    assert len(images) == 9  # photo, colours and the pin's similarity for three photos
    for dictionary, stream in images:
        width, height = (int(re.search(rf"/{side} (\d+)", dictionary)[1]) for side in ("Width", "Height"))
        assert len(stream) == height * (3 * width + 1)
        assert width == pytest.approx((486 - 6) / 3 * 150 / 72, abs=1)
    (drawn,) = [stream.decode() for dictionary, stream in objects if " Tf " in stream.decode("latin-1")]
    words = [bytes.fromhex(each).decode("cp1252") for each in re.findall(r"<([0-9a-f]+)> Tj", drawn)]
    assert {"Photo", "Colours", "Similarity to pin 1", "cat.png", "astronaut.png", "a cup.png"} <= set(words)
    assert any("patchprism render" in each for each in words)
    assert drawn.count(" re S") >= 6  # the pin and its matches, each with an outline
    try:
        import pymupdf
    except ImportError:
        return
    document = pymupdf.open(stream=content)
    assert "Similarity to pin 1" in document[0].get_text()
    assert document[0].rect.width == pytest.approx(486)


def test_letters_that_the_standard_pdf_fonts_lack_are_drawn(opened):
    opened.page.evaluate("patchprism.model.photos[0].name = '日本 dog.png'")
    try:
        _, content = figure(opened, format="pdf", dpi=72, **{"with-caption": False})
    finally:
        opened.page.evaluate("patchprism.model.photos[0].name = 'cat.png'")
    masked = [dictionary for dictionary, _ in pdf_objects(content) if "/SMask" in dictionary]
    assert len(masked) == 1


def test_an_svg_is_valid_and_loads_nothing(opened):
    name, content = figure(opened, format="svg", paper="black", dpi=72)
    assert name == "figure.svg"
    root = ElementTree.fromstring(content)
    space = "{http://www.w3.org/2000/svg}"
    images = root.findall(f"{space}image")
    assert len(images) == 6
    links = [image.get("href") for image in images]
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert root.find(f"{space}rect").get("fill") == "#000000"
    assert "patchprism render" in root.find(f"{space}desc").text


def test_the_dialog_reports_errors(opened):
    page = opened.page
    page.locator("#export-figure").click()
    submit = page.locator("#export button[type=submit]")
    for control, value, said in (
        ("width", "", "Width must be a number"),
        ("width", "6.75", " in ·"),
        ("dpi", "99999", "Resolution must be a number from 30 to 1200"),
        ("dpi", "1200", "1200 dpi"),
        ("width", "80", "more than a browser can draw"),
        ("width", "6.75", " in ·"),
        ("dpi", "300", "300 dpi"),
    ):
        page.locator(f"#export-{control}").fill(value)
        page.wait_for_function(
            f"() => document.getElementById('export-said').textContent.includes({json.dumps(said)})"
        )
        assert submit.is_disabled() == ("must" in said or "more than" in said)
    page.locator("#export-panels input").first.uncheck()
    page.locator("#export-panels input").nth(1).uncheck()
    page.wait_for_function(
        "() => document.getElementById('export-said').textContent.includes('at least one column')"
    )
    page.locator("#export-panels input").first.check()
    page.locator("#export-panels input").nth(1).check()
    page.keyboard.press("Escape")
    assert not page.locator("#export").is_visible()


def test_all_images_and_all_masks_are_saved_as_one_archive(opened, view, tmp_path):
    name, content = downloaded(opened, lambda: opened.page.locator("#download-all").click())
    assert name == "images.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["cat.pca.png", "astronaut.pca.png", "a cup.pca.png", "command.txt"]
        assert archive.read("command.txt").startswith(b"patchprism render ")
        sizes = [Image.open(archive.open(each)).size for each in archive.namelist()[:3]]
    assert sizes == [(size[1], size[0]) for size in view.sizes]
    view.save(tmp_path / "out", masks=("png", "coco"), upsample="nearest")
    name, content = downloaded(opened, lambda: opened.page.locator("#download-masks").click())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        masks = {each: np.asarray(Image.open(archive.open(each))) for each in archive.namelist()[:3]}
        coco = json.loads(archive.read("masks.coco.json"))
    written = sorted((tmp_path / "out").glob("*.mask.png"))
    assert len(written) == 3, sorted((tmp_path / "out").rglob("*"))
    for path in written:
        (own,) = (mask for each, mask in masks.items() if each.split(".")[0] in path.name)
        np.testing.assert_array_equal(own, np.asarray(Image.open(path)))
    assert [each["file_name"] for each in coco["images"]] == ["cat.png", "astronaut.png", "a cup.png"]
    assert [each["area"] for each in coco["annotations"]] == [
        int((mask > 0).sum()) for mask in masks.values()
    ]


# ---------------------------------------------------------------- teaching


def teach(watched, strokes):
    """Mark patches: [(class, brush, photo, [(row, column), ...])]."""
    page = watched.page
    if page.locator("#teach-start").get_attribute("aria-pressed") == "false":
        page.locator("#teach-start").click()
    for number, brush, photo, places in strokes:
        page.locator("#classes input[type=radio]").nth(number).click()
        page.locator(f"input[name=brush][value={brush}]").click()
        page.mouse.move(*place_of(watched, photo, *places[0]))
        page.mouse.down()
        for each in places[1:]:
            page.mouse.move(*place_of(watched, photo, *each), steps=4)
        page.mouse.up()
    watched.frame()


STROKES = [
    (1, "paint", 1, [(4, 5)]),
    (1, "paint", 1, [(6, 4), (6, 6)]),
    (0, "paint", 1, [(0, 0), (0, 3)]),
    (0, "lasso", 0, [(0, 0), (0, 4), (3, 4), (3, 0)]),
]


def marks_of(watched):
    return [tuple(each) for each in watched.page.evaluate("patchprism.state.marks")]


def test_marks_teach_a_head_that_python_loads(opened, view, tmp_path):
    page = opened.page
    teach(opened, STROKES)
    marks = marks_of(opened)
    start, w = page.evaluate("[patchprism.model.photos[1].start, patchprism.model.photos[1].grid[1]]")
    assert {(start + 4 * w + 5, 1), (start + 6 * w + 5, 1), (start, 0), (start + 3, 0)} <= set(marks)
    w0 = page.evaluate("patchprism.model.photos[0].grid[1]")
    assert {(w0 + 1, 0), (2 * w0 + 3, 0)} <= set(marks)  # inside the lasso
    name, content = downloaded(opened, lambda: page.locator("#head-save").click())
    assert name == "taught.head.safetensors"
    (tmp_path / name).write_bytes(content)
    head = patchprism.Head.load(tmp_path / name)
    assert head.classes_ == ("background", "object")
    assert head.n_photos_ == 2
    assert sum(head.n_patches_) == len(marks)
    assert head.origin == json.loads(json.dumps(view.origin))
    # Python's fit to the same marks is nearly the same, because the page's tokens are reduced.
    masks, at = [], 0
    for part in view.parts:
        labels = np.full(part.score.size, -1)
        for patch, number in marks:
            if at <= patch < at + labels.size:
                labels[patch - at] = number
        masks.append(labels.reshape(part.score.shape))
        at += labels.size
    own = patchprism.Head().fit(view.features, masks)
    cosine = (
        np.sum(own.weights_[1] * head.weights_[1])
        / np.linalg.norm(own.weights_[1])
        / np.linalg.norm(head.weights_[1])
    )
    assert cosine > 0.98
    said = np.array(page.evaluate("[...patchprism.teacher.result.classes]"))
    for other in (own, head):
        predicted = np.concatenate([each.ravel() for each in other.predict(view.features)])
        assert (predicted == said).mean() > 0.97
    assert 0 < said.sum() < said.size
    # Predictions are shown in all photos, stronger if they are more certain; marks have the colours of their classes.
    alphas = page.evaluate("""() => patchprism.gallery.tiles.flatMap((tile) => {
      const canvas = tile.layers.taught[0];
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return [...data.filter((_, i) => i % 4 === 3)];
    })""")
    np.testing.assert_array_equal(np.array(alphas) > 0, said > 0)
    sure = np.array(page.evaluate("[...patchprism.teacher.result.sure]"))
    assert np.corrcoef(sure[said > 0], np.array(alphas)[said > 0])[0, 1] > 0.99
    # Load the head into the page.
    page.locator("#teach-clear").click()
    page.set_input_files("#head-file", str(tmp_path / name))
    page.wait_for_function(
        "() => document.getElementById('teach-note').textContent.includes('taught on 2 photos')"
    )
    np.testing.assert_array_equal(page.evaluate("[...patchprism.teacher.result.classes]"), said)


def test_strokes_are_undone_one_by_one_and_a_link_contains_them(opened, page_file):
    page = opened.page
    teach(opened, STROKES[:3])
    marks = marks_of(opened)
    page.keyboard.press("Control+z")
    assert marks_of(opened) == [each for each in marks if each[1] == 1]
    page.keyboard.press("Control+Shift+z")
    assert marks_of(opened) == marks
    page.keyboard.press("Escape")  # this leaves the mode without deleting anything
    assert page.evaluate("patchprism.tool") is None
    assert marks_of(opened) == marks
    page.locator("#add-class").click()
    page.locator("#classes input[type=text]").nth(2).fill("cup & rim_1 ü.")
    page.locator("#classes input[type=text]").nth(2).press("Enter")
    page.evaluate("patchprism.showAddress()")
    fragment = page.evaluate("location.hash")
    page.evaluate(
        "patchprism.change({ marks: [], classes: patchprism.opening.classes }); patchprism.showAddress()"
    )
    page.evaluate("(hash) => { location.hash = hash; }", fragment)
    page.wait_for_function("() => patchprism.state.classes.length === 3")
    assert page.evaluate("patchprism.state.classes[2].name") == "cup & rim_1 ü."
    assert marks_of(opened) == marks
    assert "Mark a patch of cup" in page.locator("#teach-note").inner_text()
    for broken in (
        "marks=9.1-4_1.7_0.8",
        "marks=1.5-999999999_x.y_0.9-3",
        "classes=a.zz_a.000000",
        "classes=%25E0%25.000000_b.000000",
    ):
        page.evaluate("(hash) => { location.hash = hash; }", broken)
        page.wait_for_timeout(20)
    assert page.evaluate("patchprism.state.classes.length") == 2
    page.evaluate("location.hash = ''")


def test_the_taught_object_becomes_the_foreground(opened):
    page = opened.page
    teach(opened, STROKES)
    before = [opened.canvas(i)[..., 3] > 0 for i in range(3)]
    page.locator("#head-use").click()
    opened.frame()
    said = np.array(page.evaluate("[...patchprism.teacher.result.classes]")) > 0
    shown = np.concatenate([(opened.canvas(i)[..., 3] > 0).ravel() for i in range(3)])
    np.testing.assert_array_equal(shown, said)
    page.evaluate("patchprism.showAddress()")
    assert "--head taught.head.safetensors" in page.locator("#command").inner_text()
    page.locator("#head-use").click()
    opened.frame()
    for i, mask in enumerate(before):
        np.testing.assert_array_equal(opened.canvas(i)[..., 3] > 0, mask)


def test_each_class_has_its_mask(opened):
    page = opened.page
    page.locator("#add-class").click()
    teach(opened, [*STROKES, (2, "paint", 2, [(5, 4), (5, 6)])])
    _, content = downloaded(opened, lambda: page.locator("#head-masks").click())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        coco = json.loads(archive.read("masks.coco.json"))
        masks = [np.asarray(Image.open(archive.open(each))) for each in archive.namelist()[:3]]
    assert [each["name"] for each in coco["categories"]] == ["object", "class 2"]
    assert set(np.unique(masks[2])) <= {0, 1, 2}
    assert (masks[2] == 2).any()
    areas = {(each["image_id"], each["category_id"]): each["area"] for each in coco["annotations"]}
    for (image, category), area in areas.items():
        assert (masks[image - 1] == category).sum() == area


def test_a_file_that_is_not_a_head_changes_nothing(opened, tmp_path):
    page = opened.page
    teach(opened, STROKES)
    marks = marks_of(opened)
    (tmp_path / "x.safetensors").write_bytes(b"no head at all")
    page.set_input_files("#head-file", str(tmp_path / "x.safetensors"))
    page.wait_for_function("() => document.getElementById('toast').textContent.includes('not a head')")
    head = patchprism.Head()
    other = np.random.default_rng(0).normal(size=(1, 4, 4, 7)).astype(np.float32)
    head.fit(other, [np.arange(16).reshape(4, 4) % 2]).save(tmp_path / "y.safetensors")
    page.set_input_files("#head-file", str(tmp_path / "y.safetensors"))
    page.wait_for_function(
        "() => document.getElementById('toast').textContent.includes('features of width 7')"
    )
    assert marks_of(opened) == marks
