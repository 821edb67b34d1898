"""The single file in a real browser: every function of the page, used like a person."""

from __future__ import annotations

import io
import shlex

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import patchprism
from patchprism.cli.app import app
from patchprism.prism.estimator import Prism
from patchprism.support.arrays import to_uint8


@pytest.fixture
def opened(watch, page_file):
    watched = watch(page_file.as_uri())
    yield watched
    assert watched.left_the_page(page_file.as_uri()) == []


def mask_on_screen(watched, index=0):
    return watched.canvas(index)[..., 3] > 0


def drag(watched, element, start, stop, steps=6):
    box = watched.page.locator(element).bounding_box()
    y = box["y"] + box["height"] / 2
    watched.page.mouse.move(box["x"] + start * box["width"], y)
    watched.page.mouse.down()
    watched.page.mouse.move(box["x"] + stop * box["width"], y, steps=steps)
    watched.page.mouse.up()
    watched.frame()


def test_it_opens_with_the_same_colours_as_python(opened, view):
    for i, part in enumerate(view.parts):
        pixels = opened.canvas(i)
        np.testing.assert_array_equal(pixels[..., 3] > 0, part.foreground)
        np.testing.assert_array_equal(pixels[part.foreground][:, :3], to_uint8(part.rgb[part.foreground]))
    names = opened.page.locator(".name").all_inner_texts()
    assert names == ["cat.png", "astronaut.png", "a cup.png"]
    assert opened.page.title() == "3 photos through efficientnet_lite2"


def test_the_masks_follow_the_threshold(opened, view):
    before = mask_on_screen(opened)
    drag(opened, "#histogram", 0.5, 0.3)
    threshold = opened.page.evaluate("patchprism.state.threshold")
    assert threshold == pytest.approx(0.3, abs=0.01)
    score = view.parts[0].score
    side = np.greater if view.prism.side_ == "above" else np.less
    np.testing.assert_array_equal(mask_on_screen(opened), side(score, np.float32(threshold)))
    assert (mask_on_screen(opened) != before).any()
    opened.choose("side", "below" if view.prism.side_ == "above" else "above")
    opened.frame()
    other = np.less if view.prism.side_ == "above" else np.greater
    np.testing.assert_array_equal(mask_on_screen(opened), other(score, np.float32(threshold)))
    plain = [mask_on_screen(opened, i) for i in range(3)]
    opened.page.locator("#opening").fill("2")
    opened.frame()
    cleaned = [mask_on_screen(opened, i) for i in range(3)]
    assert sum(mask.sum() for mask in cleaned) < sum(mask.sum() for mask in plain)
    assert not any((mask & ~before).any() for mask, before in zip(cleaned, plain, strict=True))
    opened.page.locator("#reset-threshold").click()
    opened.frame()
    np.testing.assert_array_equal(mask_on_screen(opened), before)


def test_hovering_shows_similarity_and_leaving_hides_it(opened, view):
    page = opened.page
    x, y = opened.patch_place(0, 4, 6)
    page.mouse.move(x, y)
    opened.frame()
    assert page.locator("#gallery").evaluate("node => node.classList.contains('heating')")
    assert "row 5, column 7" in page.locator("#readout").inner_text()
    rows = [tokens.reshape(-1, tokens.shape[-1]).astype(float) for tokens in view.features]
    rows = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in rows]
    w = view.features.grids[0][1]
    full = np.concatenate([part @ rows[0][4 * w + 6] for part in rows])
    heat = np.concatenate([opened.canvas(i, "heat")[..., :3].reshape(-1, 3) for i in range(3)])
    # Brighter is more similar: the green of viridis increases.
    brightness = heat[:, 1].astype(float)
    assert np.corrcoef(brightness, np.clip(full, 0, 1))[0, 1] > 0.95
    assert brightness[4 * w + 6] == brightness.max()
    order = np.argsort(full)
    assert brightness[order[-20:]].min() > np.median(brightness)
    # Move over other patches to another photo: the patch where the pointer stops is shown.
    page.mouse.move(*opened.patch_place(1, 2, 3), steps=9)
    opened.frame()
    w = view.features.grids[1][1]
    full = np.concatenate([part @ rows[1][2 * w + 3] for part in rows])
    heat = np.concatenate([opened.canvas(i, "heat")[..., :3].reshape(-1, 3) for i in range(3)])
    assert np.corrcoef(heat[:, 1].astype(float), np.clip(full, 0, 1))[0, 1] > 0.95
    places = page.locator(".marks .cursor").evaluate_all(
        "nodes => nodes.map((n) => n.getAttribute('visibility') === 'visible' && n.getAttribute('transform'))"
    )
    assert places == [False, "translate(3 2)", False]
    page.mouse.move(5, 5)
    opened.frame()
    assert not page.locator("#gallery").evaluate("node => node.classList.contains('heating')")


def test_pins_draw_lines_to_their_matches(opened):
    page = opened.page
    page.mouse.click(*opened.patch_place(0, 4, 6))
    page.mouse.click(*opened.patch_place(1, 3, 5))
    opened.frame()
    assert page.locator(".marks .pin").count() == 2
    assert page.locator("#lines line").count() == 4  # two pins, two other photos
    assert page.locator("#pins li").count() == 2
    line = page.locator("#lines line").first
    board = page.locator("#lines").bounding_box()
    x, y = opened.patch_place(0, 4, 6)
    assert float(line.get_attribute("x1")) == pytest.approx(x - board["x"], abs=1)
    assert float(line.get_attribute("y1")) == pytest.approx(y - board["y"], abs=1)
    page.mouse.click(*opened.patch_place(0, 4, 6))  # a second click removes the pin
    opened.frame()
    assert page.locator("#lines line").count() == 2
    assert page.locator("#pins-note").is_hidden()
    page.locator("#clear-pins").click()
    opened.frame()
    assert page.locator("#lines line").count() == 0


def test_components_signs_scaling_and_basis_change_colours(opened, view):
    page = opened.page
    page.locator("#component-red").select_option("4")
    page.get_by_label("Flip green").check(force=True)
    opened.choose("scaling", "percentile")
    opened.frame()
    prism = Prism(components=(4, -2, 3), scaling="percentile").fit(view.features)
    part = prism.split(view.features[0])
    np.testing.assert_array_equal(
        opened.canvas(0)[part.foreground][:, :3], to_uint8(part.rgb[part.foreground])
    )
    # With all patches, the background has its own colours too.
    opened.choose("basis", "all")
    opened.frame()
    pixels = opened.canvas(0)
    assert (pixels[..., 3] == 255).all()
    whole = Prism(components=(4, -2, 3), foreground="none").fit(view.features).split(view.features[0])
    np.testing.assert_array_equal(pixels[..., :3], to_uint8(whole.rgb_all))
    # With the fit's foreground, the background has the photo's smallest value, as in results_raw.
    opened.choose("side", view.prism.side_)
    opened.frame()
    np.testing.assert_array_equal(opened.canvas(0)[..., :3], to_uint8(part.rgb_all))
    # The options and the bars now belong to the scene PCA, and show the chosen components.
    shares = page.locator("#component-red option").all_inner_texts()
    assert shares == [f"{k + 1} · {100 * share:.1f} %" for k, share in enumerate(prism.scene_ratio_)]
    dots = page.locator("#explained .column").evaluate_all(
        "nodes => nodes.map((node) => [...node.querySelectorAll('.dots i')].map((dot) => dot.className).join())"
    )
    assert dots == ["", "green", "blue", "red", "", "", "", ""]


def test_the_page_reports_when_a_picture_contains_its_smaller_photo(opened, view, served, watch):
    note = opened.page.locator("#picture-note")
    opened.page.wait_for_timeout(250)
    assert note.inner_text() == ""
    opened.choose("mode", "overlay")
    opened.page.wait_for_timeout(250)
    assert "smaller, compressed copies" in note.inner_text()
    download = downloaded(opened, lambda: opened.page.get_by_label("Download the picture of cat.png").click())
    picture = np.asarray(Image.open(download.path()).convert("RGB")).astype(float)
    expected = view.picture(0, overlay_alpha=0.6, upsample="nearest")
    # The picture has the photo's size and the same patches, over the photo from WebP.
    assert picture.shape == expected.shape
    assert 0 < np.abs(picture - expected).mean() < 3
    opened.choose("mode", "colours")
    opened.page.locator("#background").select_option("grey")
    opened.page.wait_for_timeout(250)
    assert note.inner_text() == ""
    # The served page fetches the original photo, so there is no message.
    page = watch(served.address).page
    page.locator("input[name=mode][value=overlay]").click()
    page.wait_for_timeout(250)
    assert page.locator("#picture-note").inner_text() == ""


def test_oklab_shows_the_same_components(opened, view, photo_files, tmp_path):
    page = opened.page
    before = opened.canvas(0)
    opened.choose("space", "oklab")
    opened.frame()
    part = Prism(space="oklab").fit(view.features).split(view.features[0])
    pixels = opened.canvas(0)
    np.testing.assert_array_equal(pixels[part.foreground][:, :3], to_uint8(part.rgb[part.foreground]))
    assert (pixels != before).any()
    assert page.get_by_label("Flip lightness").count() == 1
    page.wait_for_timeout(250)
    assert "l=oklab" in page.url
    words = shlex.split(page.locator("#command").inner_text())
    assert words[words.index("--space") + 1] == "oklab"
    done = CliRunner().invoke(app, [*words[1:-1], str(tmp_path), "--arrays"], catch_exceptions=False)
    assert done.exit_code == 0
    with np.load(tmp_path / "cat.npz") as arrays:
        np.testing.assert_array_equal(arrays["rgb"], part.rgb)
    download = downloaded(opened, lambda: page.locator("#download-prism").click())
    np.testing.assert_array_equal(Prism.load(download.path()).split(view.features[0]).rgb, part.rgb)


def test_features_without_photos_open_without_plain_grey_beside_them(watch, tmp_path, monkeypatch):
    monkeypatch.setattr("patchprism.explorer.modes.carry_modes", lambda *_: None)  # clusters take their time
    tokens = np.random.default_rng(0).normal(size=(2, 6, 9, 32))
    page = watch(patchprism.visualize(features=tokens).explore().save(tmp_path / "own.html").as_uri()).page
    assert page.locator(".pane.side:visible").count() == 0
    page.evaluate("patchprism.exporter.open()")
    assert page.evaluate("patchprism.exporter.picked(patchprism.exporter.panels)") == ["colours"]
    page.keyboard.press("Escape")
    page.locator("#beside").check()
    page.wait_for_timeout(50)
    assert page.locator(".pane.side:visible").count() == 2
    photos = [np.full((84, 126, 3), 128, np.uint8)] * 2  # grey, but given
    assert not patchprism.visualize(photos, features=tokens).explore().message.header["no_photos"]


def test_a_prism_in_oklab_opens_in_oklab_and_can_be_changed_to_rgb(view, watch, tmp_path):
    lab = patchprism.visualize(view.photos.sources, model="efficientnet_lite2", size=160, space="oklab")
    watched = watch(lab.explore().save(tmp_path / "lab.html").as_uri())
    for i, part in enumerate(lab.parts):
        shown = watched.canvas(i)[part.foreground][:, :3]
        np.testing.assert_array_equal(shown, to_uint8(part.rgb[part.foreground]))
    watched.choose("space", "rgb")
    watched.frame()
    plain = view.parts[0]
    shown = watched.canvas(0)[plain.foreground][:, :3]
    np.testing.assert_array_equal(shown, to_uint8(plain.rgb[plain.foreground]))
    download = downloaded(watched, lambda: watched.page.locator("#download-prism").click())
    assert Prism.load(download.path()).space == "rgb"


def downloaded(watched, press):
    with watched.page.expect_download() as waiting:
        press()
    return waiting.value


@pytest.mark.parametrize("background", ["black", "grey"])
def test_the_downloaded_png_has_the_same_pixels_as_python(opened, view, background):
    opened.page.locator("#background").select_option(background)
    download = downloaded(opened, lambda: opened.page.get_by_label("Download the picture of cat.png").click())
    assert download.suggested_filename == "cat.pca.png"
    picture = np.asarray(Image.open(download.path()).convert("RGB"))
    np.testing.assert_array_equal(picture, view.picture(0, background=background))


def test_the_downloaded_prism_and_the_copied_command_give_the_same_colours(opened, view, tmp_path):
    page = opened.page
    drag(opened, "#histogram", 0.5, 0.4)
    page.locator("#component-blue").select_option("5")
    opened.frame()
    download = downloaded(opened, lambda: page.locator("#download-prism").click())
    shown = opened.canvas(2)
    mask = shown[..., 3] > 0
    part = Prism.load(download.path()).split(view.features[2])
    np.testing.assert_array_equal(part.foreground, mask)
    np.testing.assert_array_equal(to_uint8(part.rgb[mask]), shown[mask][:, :3])
    page.locator("#copy").click()
    words = shlex.split(page.locator("#command").inner_text())
    done = CliRunner().invoke(app, [*words[1:-1], str(tmp_path), "--arrays"], catch_exceptions=False)
    assert done.exit_code == 0
    with np.load(tmp_path / "a cup.npz") as arrays:
        np.testing.assert_array_equal(arrays["foreground"], mask)
        np.testing.assert_array_equal(to_uint8(arrays["rgb"][mask]), shown[mask][:, :3])


def test_a_failed_copy_is_reported(opened):
    page = opened.page
    page.evaluate(
        "navigator.clipboard.writeText = () => Promise.reject(); document.execCommand = () => false; 0"
    )
    page.locator("#copy").click()
    page.wait_for_timeout(100)
    assert page.locator("#toast").inner_text() == "This browser does not let the page copy."


def test_a_link_shows_the_same_view_again(watch, page_file):
    first = watch(page_file.as_uri())
    drag(first, "#histogram", 0.5, 0.42)
    first.choose("mode", "overlay")
    first.page.locator("#component-green").select_option("6")
    first.page.locator("#opening").fill("1")
    first.page.mouse.click(*first.patch_place(1, 2, 3))
    first.page.locator("#zoom-in").click()
    first.page.wait_for_timeout(250)
    link = first.page.url
    assert "#" in link
    second = watch(link)
    assert second.page.evaluate("patchprism.state") == first.page.evaluate("patchprism.state")
    second.frame()
    for i in range(3):
        np.testing.assert_array_equal(second.canvas(i), first.canvas(i))
    assert second.page.locator(".marks .pin").count() == 1
    # Reload the same tab.
    first.page.reload()
    first.page.wait_for_selector("html[data-ready]")
    assert first.page.evaluate("patchprism.state") == second.page.evaluate("patchprism.state")


@pytest.mark.parametrize(
    "fragment",
    [
        "#t=9&s=up&o=-1&c=1.5&k=0,9,x&n=x&m=x&l=x&b=x&g=x&a=-1&z=99,7,7&p=99.0,0.99999,x.y,-1.-1",
        "#%%%",
        "#t=NaN&p=",
        "#<script>",
    ],
)
def test_an_invalid_fragment_changes_nothing(watch, page_file, fragment):
    watched = watch(page_file.as_uri() + fragment)
    assert watched.page.evaluate("JSON.stringify(patchprism.state) === JSON.stringify(patchprism.opening)")


def test_every_control_can_be_reached_with_keys(opened):
    page = opened.page
    page.keyboard.press("3")
    assert page.evaluate("patchprism.state.mode") == "overlay"
    page.keyboard.press("]")
    page.locator(".frame").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    opened.frame()
    assert page.locator(".marks .pin").count() == 1
    assert "Pinned" in page.locator("#live").inner_text()
    page.keyboard.press("ArrowDown")
    opened.frame()
    assert "Best matches" in page.locator("#live").inner_text()
    page.keyboard.press("?")
    assert page.locator("#keys").evaluate("node => node.open")


def test_every_control_has_a_name_for_screen_readers(opened):
    unnamed = opened.page.evaluate("""() => [...document.querySelectorAll("button, input, select, [role]")]
    .filter((node) => {
      const name = node.getAttribute("aria-label") || node.textContent.trim() || node.title ||
        [...(node.labels ?? [])].map((label) => label.textContent.trim()).join("");
      return !name && !["live", "toast", "failures", "nothing", "message", "job-text", "explained"].includes(node.id);
    }).map((node) => node.outerHTML)""")
    assert unnamed == []
    assert (
        opened.page.locator("#explained")
        .get_attribute("aria-label")
        .startswith("Explained variance: component 1")
    )


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1300, "dark")])
def test_nothing_exceeds_the_width_of_a_phone_or_a_window(browser, page_file, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 780}, color_scheme=scheme)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        """(width) => [...document.querySelectorAll("body *")].filter((node) => {
      const box = node.getBoundingClientRect();
      return box.width && box.right > width + 1 && !node.closest(".frame, .skip, .sr, #toast, #lines, .toolbar");
    }).map((node) => node.outerHTML.slice(0, 80))""",
        width,
    )
    assert wide == []
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    context.close()


def test_zoom_keeps_the_point_under_the_pointer(opened):
    page = opened.page
    x, y = opened.patch_place(0, 3, 3)
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    opened.frame()
    zoom = page.evaluate("patchprism.state.zoom")
    assert zoom > 2
    after = opened.patch_place(0, 3, 3)
    assert after == pytest.approx((x, y), abs=2)


def test_a_title_is_escaped(view, watch, tmp_path):
    title = '</title></script><script>document.title="x"</script>{{script}}"\'<!--'
    watched = watch(view.explore(title=title).save(tmp_path / "t.html").as_uri())
    assert watched.page.title() == title
    assert watched.page.locator("#title").inner_text() == title


def test_notebooks_display_it_in_a_frame(view, browser):
    html = view.explore()._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    context = browser.new_context()
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_content(f"<!doctype html><body>{html}")
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready=true]").wait_for(timeout=20_000, state="attached")
    frame.locator("input[name=mode][value=overlay]").click()
    frame.locator("#alpha").wait_for()
    assert frame.locator("#link").is_hidden()  # links cannot open a page in a notebook
    page.wait_for_timeout(250)
    assert problems == []
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "patches"), [(448, 28), (512, 32)])  # 32 x 32 is DINOv2's grid at 448
def test_ten_photos_stay_below_six_megabytes(size, patches):
    data = pytest.importorskip("skimage.data")
    photos = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.retina()[::2, ::2]]
    photos += [data.immunohistochemistry(), data.hubble_deep_field(), data.camera(), data.coins()]
    photos += [data.astronaut()[:400, ::-1]]
    view = patchprism.visualize(photos, model="efficientnet_lite2", preset="seed", size=size)
    assert view.features.grids == [(patches, patches)] * 10
    page = view.explore()
    assert len(page.html.encode()) < 6_000_000
    assert page.message.header["tokens"]["error"]["within"] >= 0.999
    assert page.message.header["tokens"]["error"]["max"] < 0.1
    for i in range(10):
        content = page.message.parts[f"photo-{i}"][2]
        assert min(Image.open(io.BytesIO(content)).size) >= 300
