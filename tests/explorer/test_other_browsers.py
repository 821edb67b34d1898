"""The page in Firefox and in WebKit, Safari's engine, must work as in Chromium.

test_page.py and test_served.py test everything in Chromium; these tests are for differences between engines.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shlex
import time
import zipfile

import numpy as np
import pytest
import webdriver
from PIL import Image

import patchprism
from patchprism.prism.estimator import Prism
from patchprism.support.arrays import to_uint8

CONTROL = "\ue009"
READY = "document.documentElement.dataset.ready"

# Records the page's errors, from its first script on.
RECORDER = """
globalThis.complaints = [];
const complain = (text) => complaints.push(String(text));
addEventListener("error", (event) => complain(event.message ?? `not loaded: ${event.target.outerHTML}`), true);
addEventListener("unhandledrejection", (event) => complain(event.reason));
addEventListener("securitypolicyviolation", (event) => complain(`${event.violatedDirective}: ${event.blockedURI}`));
for (const level of ["error", "warn"]) console[level] = (...words) => complain(words.join(" "));
"""


def recorded(html):
    """The page with the recorder as its first script, allowed by its policy."""
    digest = base64.b64encode(hashlib.sha256(RECORDER.encode()).digest()).decode()
    html = html.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return html.replace("<title>", f"<script>{RECORDER}</script><title>", 1)


@pytest.fixture(scope="module", params=["Firefox", "WebKit"])
def driver(request, tmp_path_factory):
    if request.param == "Firefox" and webdriver.FIREFOX is None:
        pytest.skip("no Firefox found; PATCHPRISM_FIREFOX can give its path")
    if request.param == "WebKit" and None in (webdriver.WEBKIT, webdriver.MINIBROWSER, webdriver.XVFB):
        pytest.skip("no WebKit found; on Debian, install webkit2gtk-driver and xvfb")
    started = getattr(webdriver, request.param)(tmp_path_factory.mktemp(request.param))
    yield started
    started.close()


@pytest.fixture(scope="module")
def recorded_file(explored, tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "explorer.html"
    path.write_text(recorded(explored.html), "utf-8", newline="\n")
    return path


@pytest.fixture
def opened(driver, recorded_file):
    show(driver, recorded_file.as_uri())
    yield driver
    assert driver.script("complaints") == []
    asked = driver.script("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [address for address in asked if not address.startswith(("blob:", "data:"))] == []


def show(driver, address):
    driver.open(address)
    assert driver.until(READY) == "true"
    unfold(driver)


def unfold(driver):
    """Open all sections of the panel, because some are collapsed in a small window."""
    driver.script("document.querySelectorAll('details.section').forEach((each) => { each.open = true; })")


def canvas(driver, index, layer="colors"):
    """Pixels of one of a photo's canvases in the next frame, (h, w, 4)."""
    h, w, data = driver.script(
        """new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => {
          const canvas = document.querySelectorAll(`canvas.${arguments[1]}`)[arguments[0]];
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return [canvas.height, canvas.width, Array.from(data)];
        })""",
        index,
        layer,
    )
    return np.array(data, np.uint8).reshape(h, w, 4)


def same_colors(driver, parts, whole=False):
    """Check that masks and colours on the screen equal Python's exactly."""
    for i, part in enumerate(parts):
        pixels = canvas(driver, i)
        shown = np.ones_like(part.foreground) if whole else part.foreground
        np.testing.assert_array_equal(pixels[..., 3] > 0, shown)
        rgb = part.rgb_all if whole else part.rgb
        np.testing.assert_array_equal(pixels[shown][:, :3], to_uint8(rgb[shown]))


def patch_place(driver, index, row, column):
    h, w = driver.script(f"patchprism.model.photos[{index}].grid")
    return driver.place(f".tile:nth-child({index + 1}) .marks", (column + 0.5) / w, (row + 0.5) / h)


def drag_threshold(driver, start, stop):
    stops = [driver.place("#histogram", x) for x in np.linspace(start, stop, 5)]
    driver.pointer(stops[0], "down", *stops, "up", milliseconds=20)


def choose(driver, name, value):
    driver.click(f"input[name={name}][value={value}]")


def downloaded(driver, press):
    """Name and bytes of the file that a button saves."""
    before = set(driver.downloads.iterdir())
    press()
    end = time.monotonic() + 20
    size = 0
    while True:
        assert time.monotonic() < end, "nothing was downloaded"
        new = [path for path in driver.downloads.iterdir() if path not in before]
        # Wait while the file has a temporary name or still grows.
        if len(new) == 1 and not new[0].name.endswith((".part", ".wkdownload")):
            if size and new[0].stat().st_size == size:
                break
            size = new[0].stat().st_size
        time.sleep(0.1)
    content = new[0].read_bytes()
    name = new[0].name
    new[0].unlink()
    return name, content


def picture(driver, index=0):
    name, content = downloaded(
        driver, lambda: driver.click(f".tile:nth-child({index + 1}) figcaption button")
    )
    return name, np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def pasted(driver):
    """Contents of the clipboard, pasted with keys."""
    driver.script("document.body.append(Object.assign(document.createElement('textarea'), { id: 'paste' }))")
    driver.script("document.getElementById('paste').focus()")
    driver.keys("v", held=CONTROL)
    text = driver.until("document.getElementById('paste').value")
    driver.script("document.getElementById('paste').remove()")
    return text


def test_it_opens_with_the_same_colours_as_python(opened, view, explored):
    same_colors(opened, view.parts)
    assert opened.script("document.title") == "3 photos through efficientnet_lite2"
    # Photos are decoded like in Pillow, except for the upsampling of chroma.
    for i in range(3):
        content = explored.message.parts[f"photo-{i}"][2]
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        h, w, data = opened.script(
            """((image) => {
              const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
              const context = canvas.getContext("2d");
              context.drawImage(image, 0, 0);
              const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
              return [canvas.height, canvas.width, Array.from(data)];
            })(document.querySelectorAll("img.photo")[arguments[0]])""",
            i,
        )
        shown = np.array(data).reshape(h, w, 4)[..., :3]
        assert shown.shape == expected.shape
        assert np.abs(shown - expected).mean() < 2


def test_masks_and_colours_follow_the_controls(opened, view):
    before = canvas(opened, 0)[..., 3] > 0
    drag_threshold(opened, 0.5, 0.3)
    threshold = opened.script("patchprism.state.threshold")
    assert threshold == pytest.approx(0.3, abs=0.01)
    side = np.greater if view.prism.side_ == "above" else np.less
    expected = side(view.parts[0].score, np.float32(threshold))
    np.testing.assert_array_equal(canvas(opened, 0)[..., 3] > 0, expected)
    assert (expected != before).any()
    opened.click("#reset-threshold")
    opened.script("document.getElementById('component-red').focus()")
    opened.type_into("#component-red", "4")
    opened.click("#turn-green")
    for options in (
        {"scaling": "percentile"},
        {"scaling": "percentile", "space": "oklab"},
        {"scaling": "sigmoid", "space": "oklab"},
        {"scaling": "sigmoid", "space": "rgb"},
    ):
        for name, value in options.items():
            choose(opened, name, value)
        prism = Prism(components=(4, -2, 3), **options).fit(view.features)
        same_colors(opened, [prism.split(tokens) for tokens in view.features])
    choose(opened, "basis", "all")
    prism = Prism(components=(4, -2, 3), scaling="sigmoid", foreground="none").fit(view.features)
    same_colors(opened, [prism.split(tokens) for tokens in view.features], whole=True)


def test_hovering_shows_similarity_and_pins_their_matches(opened, view):
    opened.pointer(patch_place(opened, 0, 4, 6))
    opened.until("document.getElementById('readout').textContent.includes('row 5, column 7')")
    assert opened.script("document.getElementById('gallery').classList.contains('heating')")
    rows = [tokens.reshape(-1, tokens.shape[-1]).astype(float) for tokens in view.features]
    rows = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in rows]
    w = view.features.grids[0][1]
    cosines = np.concatenate([part @ rows[0][4 * w + 6] for part in rows])
    heat = np.concatenate([canvas(opened, i, "heat")[..., :3].reshape(-1, 3) for i in range(3)])
    brightness = heat[:, 1].astype(float)
    assert np.corrcoef(brightness, np.clip(cosines, 0, 1))[0, 1] > 0.95
    assert brightness[4 * w + 6] == brightness.max()
    opened.pointer(patch_place(opened, 0, 4, 6), "down", "up")
    opened.until("document.querySelectorAll('#lines line').length === 2")
    # The pointer is still there, and so is the heat map.
    canvas(opened, 0)
    assert "row 5, column 7" in opened.script("document.getElementById('readout').textContent")
    assert opened.script("document.getElementById('gallery').classList.contains('heating')")
    x, y = patch_place(opened, 0, 4, 6)
    line = opened.script(
        """((line, board) => [board.left + line.x1.baseVal.value, board.top + line.y1.baseVal.value])(
          document.querySelector("#lines line"), document.getElementById("lines").getBoundingClientRect())"""
    )
    assert line == pytest.approx([x, y], abs=1)
    # With keys, from the patch in the middle.
    opened.script("document.querySelector('.frame').focus()")
    opened.keys("\ue014", "\ue015", " ")  # right, down, Space
    opened.until("document.querySelectorAll('.marks .pin').length === 2")
    opened.keys("\ue00c")  # Escape: the heat map is released, and the pins stay
    opened.pointer((5, 5))
    opened.until("!document.getElementById('gallery').classList.contains('heating')")
    assert opened.script("document.querySelectorAll('.marks .pin').length") == 2
    opened.keys("z", held=CONTROL)
    opened.keys("z", held=CONTROL)
    opened.until("document.querySelectorAll('.marks .pin').length === 1")
    # One photo fills the window, and back.
    opened.script("document.querySelector('.frame').focus()")
    opened.keys("\ue007")  # Enter
    opened.until("document.querySelectorAll('.tile').length === 1")
    opened.keys("\ue00c")
    opened.until("document.querySelectorAll('.tile').length === 3")


def test_saved_files_equal_those_of_python(opened, view, tmp_path):
    name, shown = picture(opened)
    assert name == "cat.pca.png"
    np.testing.assert_array_equal(shown, view.picture(0))
    opened.type_into("#background", "On grey")
    np.testing.assert_array_equal(picture(opened)[1], view.picture(0, background="grey"))
    choose(opened, "mode", "overlay")
    expected = view.picture(0, overlay_alpha=0.6, upsample="nearest").astype(int)
    # The picture has the photo's size and the same patches, over the photo from WebP.
    assert 0 < np.abs(picture(opened)[1] - expected).mean() < 3
    drag_threshold(opened, 0.5, 0.4)
    name, content = downloaded(opened, lambda: opened.click("#download-prism"))
    assert name == "explored.prism.safetensors"
    (tmp_path / name).write_bytes(content)
    prism = Prism.load(tmp_path / name)
    same_colors(opened, [prism.split(tokens) for tokens in view.features])
    opened.click("#command")  # one click selects all of it
    assert opened.script("getSelection().toString().startsWith('patchprism render')")
    opened.click("#copy")
    opened.until("document.getElementById('toast').textContent === 'The command is copied.'")
    words = shlex.split(pasted(opened))
    assert words[:2] == ["patchprism", "render"]
    assert words[words.index("--overlay") + 1] == "0.6"
    assert float(words[words.index("--mask-threshold") + 1]) == opened.script("patchprism.state.threshold")


def test_a_reload_and_a_link_show_the_same_view(opened):
    opening = opened.script("location.href")
    drag_threshold(opened, 0.5, 0.42)
    choose(opened, "mode", "overlay")
    opened.pointer(patch_place(opened, 1, 2, 3), "down", "up")
    opened.click("#zoom-in")
    opened.until("location.hash.includes('z=')")
    link, state = opened.script("location.href"), opened.script("patchprism.state")
    shown = [canvas(opened, i) for i in range(3)]
    opened.reload()
    assert opened.until(READY) == "true"
    assert opened.script("patchprism.state") == state
    show(opened, opening)
    assert opened.script("patchprism.state") != state
    show(opened, link)
    assert opened.script("patchprism.state") == state
    for i in range(3):
        np.testing.assert_array_equal(canvas(opened, i), shown[i])
    # Controls show the current state, not their values when the page was left.
    assert opened.script("document.querySelector('input[name=mode]:checked').value") == "overlay"
    assert float(opened.script("document.getElementById('threshold').value")) == state["threshold"]


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_exceeds_the_width_of_a_phone_or_a_window(driver, page_file, tmp_path, width):
    # A window cannot be as narrow as a phone, but a frame can.
    frame = f'<iframe src="{page_file.as_uri()}" style="width:{width}px;height:700px;border:0"></iframe>'
    (tmp_path / "framed.html").write_text(f"<!doctype html><body style='margin:0'>{frame}", "utf-8")
    driver.open((tmp_path / "framed.html").as_uri())
    driver.into_frame("iframe")
    assert driver.until(READY) == "true"
    assert driver.script("innerWidth") == width
    assert driver.script("document.documentElement.scrollWidth") <= width
    wide = driver.script(
        """[...document.querySelectorAll("body *")].filter((node) => {
          const box = node.getBoundingClientRect();
          const free = node.closest(".frame, .skip, .sr, #toast, #lines, .toolbar");
          return box.width && box.right > arguments[0] + 1 && !free;
        }).map((node) => node.outerHTML.slice(0, 80))""",
        width,
    )
    assert wide == []
    driver.into_frame(None)


def test_light_and_dark(opened):
    color = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(246, 246, 248)", "rgb(16, 17, 22)"
    assert opened.script(color) == light
    opened.click("#theme")
    assert opened.script(color) == dark
    opened.click("#theme")
    assert opened.script(color) == light
    if opened.name == "Firefox":
        scheme = "layout.css.prefers-color-scheme.content-override"
        opened.prefer(scheme, 0)
        opened.reload()
        opened.until(READY)
        assert opened.script(color) == dark
        opened.prefer(scheme, None)


def test_notebooks_display_it_in_a_frame(driver, view, explored, tmp_path):
    html = explored._repr_html_().replace("height:760px", "height:500px")
    (tmp_path / "notebook.html").write_text(f'<!doctype html><meta charset="utf-8"><body>{html}', "utf-8")
    driver.open((tmp_path / "notebook.html").as_uri())
    driver.into_frame("iframe")
    assert driver.until(READY) == "true"
    assert driver.script("origin") == "null"
    same_colors(driver, view.parts)
    unfold(driver)
    # WebKit's driver cannot press elements in a frame that need scrolling.
    driver.script(
        """((node) => { node.value = "grey"; node.dispatchEvent(new Event("change")); })(
          document.getElementById("background"))"""
    )
    np.testing.assert_array_equal(picture(driver)[1], view.picture(0, background="grey"))
    driver.click("#copy")
    driver.until("document.getElementById('toast').textContent === 'The command is copied.'")
    assert pasted(driver).endswith("--background grey --out out")
    driver.into_frame(None)


def test_the_served_page_adds_photos_refits_and_reloads(driver, served, view, tmp_path):
    show(driver, served.address)
    same_colors(driver, view.parts)
    y, x = np.mgrid[:90, :120]
    photo = np.stack([x, y, x + y], axis=-1).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "new one.png")
    driver.type_into("#files", str(tmp_path / "new one.png"))
    driver.until("patchprism.model.photos.length === 4 && !patchprism.working")
    drag_threshold(driver, 0.5, 0.4)
    threshold = driver.script("patchprism.state.threshold")
    driver.click("#refit")
    driver.until(f"patchprism.model.header.fit.threshold === {threshold} && !patchprism.working")
    again = patchprism.visualize(
        [*(str(name) for name in view.names), photo],
        model="efficientnet_lite2",
        size=160,
        threshold=threshold,
        foreground=view.prism.method_,
    )
    for i, part in enumerate(again.parts):
        pixels = canvas(driver, i)
        np.testing.assert_array_equal(pixels[..., 3] > 0, part.foreground)
        colors = to_uint8(part.rgb[part.foreground]).astype(int)
        np.testing.assert_allclose(pixels[part.foreground][:, :3].astype(int), colors, atol=1)
    # The picture is over the original photo, which the server has.
    choose(driver, "mode", "overlay")
    shown = picture(driver)[1].astype(int)
    np.testing.assert_allclose(
        shown, again.picture(0, overlay_alpha=0.6, upsample="nearest").astype(int), atol=1
    )
    assert driver.script("document.getElementById('message').textContent") == ""
    # If the page is left while its buttons are disabled, as during a fit, they work again after a reload. Firefox
    # would keep them disabled without the header no-store.
    driver.script(
        "['refit', 'save', 'model', 'files'].forEach((id) => document.getElementById(id).disabled = true)"
    )
    driver.reload()
    assert driver.until(READY) == "true"
    assert driver.script("patchprism.model.photos.length") == 4
    off = driver.script("[...document.querySelectorAll('#work :disabled')].map((node) => node.id)")
    assert off == []
    # Without the token, nothing is served.
    address = served.address.replace(served.token, "A" * len(served.token))
    driver.open(address)
    assert "no such page" in driver.script("document.body.textContent")


def test_protection_against_fingerprinting_does_not_change_saved_pictures(driver, page_file, view):
    if driver.name != "Firefox":
        pytest.skip("only Firefox has this preference")
    driver.prefer("privacy.resistFingerprinting", True)
    try:
        show(driver, page_file.as_uri())
        # Canvases are read as noise, so the picture must not come from a canvas.
        assert (canvas(driver, 0)[..., 3] > 0).tolist() != view.parts[0].foreground.tolist()
        np.testing.assert_array_equal(picture(driver)[1], view.picture(0))
        # The photo could only be read from a canvas, so it is left out.
        choose(driver, "mode", "overlay")
        driver.click(".tile figcaption button")
        driver.until("document.getElementById('toast').textContent.includes('fingerprinting')")
    finally:
        driver.prefer("privacy.resistFingerprinting", None)


def test_the_recorder_records_errors(driver, tmp_path):
    (tmp_path / "bad.html").write_text(
        recorded(
            '<meta http-equiv="Content-Security-Policy" content="script-src \'self\'; img-src data:"><title></title>'
            '<script>1</script><img src="data:image/png,x"><img src="http://127.0.0.1:9/">'
        ),
        "utf-8",
    )
    driver.open((tmp_path / "bad.html").as_uri())
    driver.script("console.error('told', 1)")
    told = json.dumps(driver.until("complaints.length >= 4 && complaints"))
    for words in ("script-src", "img-src", "not loaded", "told 1"):
        assert words in told


def test_the_tools_work(opened, view):
    """Scatter plot, teaching and figures work in every engine."""
    found = opened.script("""(async () => {
      const { scatter, teacher, exporter, model } = patchprism;
      for (const id of ["scatter", "teach"]) document.getElementById(id).open = true;
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const drawn = [...scatter.field.ids].filter((id) => id >= 0);
      scatter.choose(scatter.field.within([[0, 0], [1e4, 0], [1e4, 1e4], [0, 1e4]]));
      const chosen = scatter.chosen.reduce((sum, one) => sum + one, 0);
      patchprism.change({ marks: [[0, 0], [1, 0], [25, 0], [44, 1], [45, 1], [55, 1], [130, 0]] });
      await teacher.settled();
      exporter.open();
      const scene = await exporter.scene({ ...exporter.settings(), dpi: 72, format: "png" }, false);
      const files = [];
      exporter.dialog.close();
      const give = patchprism.give;
      patchprism.give = (blob, name) => files.push([name, blob]);
      for (const format of ["png", "svg", "pdf"]) {
        exporter.open();
        exporter.format.value = format;
        exporter.dpi.value = "72";
        await exporter.save();
      }
      await exporter.allImages();
      await exporter.masks();
      patchprism.give = give;
      const text = async (blob) => btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));
      return {
        drawn: new Set(drawn).size, chosen, classes: [...teacher.result.classes], width: scene.width,
        files: await Promise.all(files.map(async ([name, blob]) => [name, await text(blob)])),
      };
    })()""")
    foreground = sum(int(part.foreground.sum()) for part in view.parts)
    assert 0.5 * foreground < found["drawn"] <= foreground
    assert found["chosen"] == foreground
    assert 0 < sum(found["classes"]) < len(found["classes"])
    files = {name: base64.b64decode(text) for name, text in found["files"]}
    assert list(files) == ["figure.png", "figure.svg", "figure.pdf", "images.zip", "masks.zip"]
    assert Image.open(io.BytesIO(files["figure.png"])).width == 486
    assert files["figure.pdf"].endswith(b"%%EOF\n")
    assert files["figure.svg"].count(b"<image ") == 6
    with zipfile.ZipFile(io.BytesIO(files["masks.zip"])) as archive:
        assert archive.testzip() is None
        masks = [np.asarray(Image.open(archive.open(name))) for name in archive.namelist()[:3]]
    assert [mask.shape for mask in masks] == [tuple(size) for size in view.sizes]
