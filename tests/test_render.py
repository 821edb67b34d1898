"""Pictures and figures, compared with simple loops."""

from __future__ import annotations

import hashlib
import os
import time
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import skimage
from figures_drawn import figure_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchprism.errors import OptionError, OutputError
from patchprism.pictures.captions import fit_lines, load_font, text_width
from patchprism.pictures.figures import Style, fg_mask_sheet, results_sheet
from patchprism.pictures.histogram import count_scores, histogram_drawing
from patchprism.pictures.render import overlay, paint, write_picture
from patchprism.pictures.sheet import viridis

pytestmark = pytest.mark.figures_at_size


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# -- paint ---------------------------------------------------------------------------------------------------


def slow_paint(colors, crop, size, fill):
    """Pixel by pixel."""
    left, top, right, bottom = crop
    rows, columns = colors.shape[:2]
    picture = np.full((*size, 3), round(fill * 255), np.uint8)
    for y in range(size[0]):
        for x in range(size[1]):
            if left <= x + 0.5 < right and top <= y + 0.5 < bottom:
                row = int((y + 0.5 - top) * rows / (bottom - top))
                column = int((x + 0.5 - left) * columns / (right - left))
                picture[y, x] = np.rint(colors[row, column] * 255)
    return picture


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    edges=st.tuples(*[st.integers(-40, 240)] * 4),
    fill=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_paint_equals_the_loop(size, grid, edges, fill):
    left, right = sorted(edges[:2])
    top, bottom = sorted(edges[2:])
    crop = (left / 8, top / 8, right / 8 + 1 / 16, bottom / 8 + 1 / 16)
    colors = rng().random((*grid, 3)).astype(np.float32)
    painted = paint(colors, crop=crop, size=size, fill=fill)
    expected = slow_paint(colors, crop, size, fill)
    assert painted.dtype == np.uint8
    # If a centre is on the border of two patches, rounding may choose either.
    differing = (painted != expected).any(-1)
    for y, x in np.argwhere(differing):
        at = (
            (y + 0.5 - crop[1]) * grid[0] / (crop[3] - crop[1]),
            (x + 0.5 - crop[0]) * grid[1] / (crop[2] - crop[0]),
        )
        assert min(abs(value - round(value)) for value in at) < 1e-9


def test_paint_whole_patches():
    colors = rng().random((3, 5, 3))
    painted = paint(colors, crop=(0, 0, 20, 12), size=(12, 20))
    np.testing.assert_array_equal(painted, np.rint(colors * 255).repeat(4, 0).repeat(4, 1))


def test_paint_is_black_outside_the_crop():
    painted = paint(np.ones((2, 2, 3)), crop=(5.5, 2.4, 15.5, 8.6), size=(11, 21))
    white = painted.all(-1)
    assert not painted[~white].any()
    # Centres from 5.5 to below 15.5, and from 2.4 to below 8.6.
    assert list(np.flatnonzero(white.any(0))) == list(range(5, 15))
    assert list(np.flatnonzero(white.any(1))) == list(range(2, 9))


def test_paint_covers_what_the_network_saw_of_a_framed_photo():
    from patchprism.photos.framing import Framing

    framing = Framing.preset("default", patch_size=14, mean=(0,) * 3, std=(1,) * 3)
    framed = framing.apply(np.zeros((480, 641, 3), np.uint8))
    painted = paint(np.ones((*framed.grid, 3), np.float32), crop=framed.crop, size=(480, 641))
    assert (painted.all(-1)).mean() > 0.97


@pytest.mark.parametrize(
    "options",
    [
        {"colors": np.zeros((2, 2))},
        {"colors": np.zeros((2, 2, 4))},
        {"colors": np.zeros((0, 2, 3))},
        {"colors": np.zeros((2, 2, 3), np.uint8)},
        {"colors": np.full((2, 2, 3), np.nan)},
        {"crop": (0, 0, 0, 5)},
        {"crop": (0, 5, 5, 0)},
        {"crop": (0, 0, np.nan, 5)},
        {"size": (0, 5)},
        {"fill": np.nan},
    ],
)
def test_paint_refuses(options):
    with pytest.raises(OptionError):
        paint(**({"colors": np.zeros((2, 2, 3)), "crop": (0, 0, 5, 5), "size": (5, 5)} | options))


# -- overlay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.6, 1.0])
def test_overlay_blends_the_foreground_only(alpha):
    photo, picture = rng().integers(0, 256, (2, 130, 40, 3), dtype=np.uint8)
    foreground = np.array([[True, False], [False, True]])
    crop = (4.0, 10.0, 36.0, 110.0)
    result = overlay(photo, picture, alpha, foreground=foreground, crop=crop)
    mask = np.zeros((130, 40), bool)
    mask[10:60, 4:20] = mask[60:110, 20:36] = True
    np.testing.assert_array_equal(result[~mask], photo[~mask])
    exact = photo * (1 - alpha) + picture * float(alpha)
    assert np.abs(result[mask] - exact[mask]).max() <= 1
    everywhere = overlay(photo, picture, alpha)
    assert np.abs(everywhere - exact).max() <= 1
    if alpha in (0.0, 1.0):
        np.testing.assert_array_equal(everywhere, exact)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 1.1},
        {"alpha": -0.1},
        {"alpha": float("nan")},
        {"picture": np.zeros((4, 5, 3), np.uint8)},
        {"photo": np.zeros((4, 4, 3), np.float32)},
        {"foreground": np.ones((2, 2))},
        {"foreground": np.ones(2, bool)},
    ],
)
def test_overlay_refuses(options):
    plain = {"photo": np.zeros((4, 4, 3), np.uint8), "picture": np.zeros((4, 4, 3), np.uint8), "alpha": 0.5}
    with pytest.raises(OptionError):
        overlay(**(plain | options))


# -- writing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tolerance"), [("a.png", 0), ("a.PNG", 0), ("a.jpg", 8), ("a.jpeg", 8)])
def test_write_picture(tmp_path, photo, name, tolerance):
    for _ in range(2):
        write_picture(tmp_path / name, photo)
        with Image.open(tmp_path / name) as image:
            assert np.abs(np.asarray(image).astype(int) - photo).max() <= tolerance
    assert os.listdir(tmp_path) == [name]


def test_the_same_picture_gives_the_same_bytes(tmp_path, photo):
    for suffix in ("png", "jpg"):
        digests = set()
        for index in range(3):
            path = tmp_path / f"{index}.{suffix}"
            write_picture(path, photo[::-1] if index == 2 else photo[::-1].copy())
            digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        assert len(digests) == 1


def ramp(height, width, channels):
    """Each pixel is the mean of its neighbours, so that nothing remains after PNG's filter "average"."""
    return np.add.outer(np.arange(height), np.arange(width))[:, :, None].repeat(channels, 2).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 4), (70, 1, 3), (64, 33, 4), (97, 201, 3)])
@pytest.mark.parametrize("kind", ["noise", "flat", "ramp", "rows", "columns", "mixed"])
def test_png_keeps_every_pixel(tmp_path, shape, kind):
    noise = rng().integers(0, 256, shape, dtype=np.uint8)
    kinds = {
        "noise": noise,
        "flat": np.full(shape, 255, np.uint8),
        "ramp": ramp(*shape),
        "rows": np.broadcast_to(noise[:, :1], shape),
        "columns": np.broadcast_to(noise[:1], shape)[::-1, ::-1],
    }
    kinds["mixed"] = np.concatenate([each[:20] for each in kinds.values()])
    write_picture(tmp_path / "a.png", kinds[kind], dpi=300)
    with Image.open(tmp_path / "a.png") as image:
        image.verify()  # checks the checksums, which loading ignores
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        np.testing.assert_array_equal(np.asarray(image), kinds[kind])


def test_png_is_about_as_small_as_pillow_makes_it(tmp_path):
    photo = np.asarray(Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png"))
    grid = rng().integers(0, 256, (12, 18, 3), dtype=np.uint8)
    patches = grid.repeat(30, 0).repeat(30, 1)
    for picture, most in ((photo, 1.15), (patches, 1.1)):
        write_picture(tmp_path / "ours.png", picture)
        Image.fromarray(picture).save(tmp_path / "theirs.png", compress_type=3)
        assert (tmp_path / "ours.png").stat().st_size < most * (tmp_path / "theirs.png").stat().st_size


def test_jpegs_keep_the_edges_of_patches(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 255
    write_picture(tmp_path / "a.jpg", stripes)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - stripes).max() < 30


def test_quality_is_used(tmp_path):
    noise = rng().integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_picture(tmp_path / "a.jpg", noise, quality=95)
    write_picture(tmp_path / "b.jpg", noise, quality=10)
    assert (tmp_path / "a.jpg").stat().st_size > 2 * (tmp_path / "b.jpg").stat().st_size


@pytest.mark.parametrize(
    ("name", "picture", "options"),
    [
        ("a.gif", np.zeros((2, 2, 3), np.uint8), {}),
        ("a", np.zeros((2, 2, 3), np.uint8), {}),
        ("a.png", np.zeros((2, 2, 3)), {}),
        ("a.png", np.zeros((2, 2), np.uint8), {}),
        ("a.png", np.zeros((0, 2, 3), np.uint8), {}),
        ("a.jpg", np.zeros((2, 2, 3), np.uint8), {"quality": 0}),
    ],
)
def test_write_picture_refuses(tmp_path, name, picture, options):
    with pytest.raises(OptionError):
        write_picture(tmp_path / name, picture, **options)
    assert os.listdir(tmp_path) == []


def test_pictures_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*folder does not exist"):
        write_picture(tmp_path / "no" / "a.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(OutputError, match="65,535"):
        write_picture(tmp_path / "a.jpg", np.zeros((1, 70000, 3), np.uint8))


# -- figures -------------------------------------------------------------------------------------------------


def test_viridis_is_matplotlibs():
    values = np.linspace(0, 1, 256)
    assert np.abs(viridis(values) - mpl.colormaps["viridis"](values)[:, :3]).max() < 0.012
    assert viridis(np.zeros((4, 5))).shape == (4, 5, 3)


def cases(grids):
    shown = [np.full((h * 14, w * 14, 3), (200, 30, 30), np.uint8) for h, w in grids]
    colors = [np.broadcast_to(np.float32([0, 0, 1]), (h, w, 3)) for h, w in grids]
    return shown, colors


def runs(line: np.ndarray) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return list(edges[1::2] - edges[::2])


def test_results_have_one_row_per_photo_with_its_shape():
    grids = [(32, 48), (32, 32), (48, 32)]
    figure = figure_of(results_sheet, *cases(grids))
    blue = (figure == (0, 0, 255)).all(-1)
    red = (np.abs(figure.astype(int) - (200, 30, 30)) <= 2).all(-1)
    heights = runs(blue.any(1))
    assert len(heights) == 3
    assert runs(red.any(1)) == heights
    start = 0
    for height, (h, w) in zip(heights, grids, strict=True):
        row = start + int(np.flatnonzero(blue.any(1)[start:])[0])
        (width,) = runs(blue[row])
        assert runs(red[row]) == [width]
        # Each patch has a whole number of pixels.
        assert (height % h, width % w) == (0, 0)
        assert height // h == width // w
        assert np.flatnonzero(red[row])[-1] < np.flatnonzero(blue[row])[0]
        start = row + height
    assert (figure[0] == 255).all()
    assert (figure[:, -1] == 255).all()


def test_panels_of_fg_mask_form_a_square_and_show_the_score_over_the_photo():
    shown, _ = cases([(8, 8)] * 4)
    scores = [np.full((8, 8), 0.75, np.float32)] * 4
    foreground = np.zeros((8, 8), bool)
    foreground[:, 4:] = True
    for side, value in (("above", 0.75), ("below", 0.25)):
        figure = figure_of(fg_mask_sheet, shown, scores, [foreground] * 4, side=side)

        def blend(score):
            return 0.5 * np.array([200, 30, 30]) + 127.5 * viridis(np.array(score))

        for score in (0.0, value):
            found = (np.abs(figure - blend(score)) <= 2).all(-1)
            assert runs(found.any(0)) == [304, 304]
            assert runs(found.any(1)) == [608, 608]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 30, 100, 250])
def test_figures_of_any_number_of_photos(count):
    grids = [(4, 6), (6, 4), (4, 4)] * 84
    shown, colors = cases(grids[:count])
    names = [f"photo-{index}-{'x' * 90}.jpg" for index in range(count)]
    figure = figure_of(results_sheet, shown, colors, Style(names=names))
    assert figure.dtype == np.uint8
    assert max(figure.shape) < 9000
    assert 1 / 4 < figure.shape[0] / figure.shape[1] < 4
    blue = (figure == (0, 0, 255)).all(-1)
    assert blue.sum() > 0.1 * blue.size
    masks = figure_of(
        fg_mask_sheet, shown, [c[..., 0] for c in colors], [c[..., 2] > 0 for c in colors], Style(names=names)
    )
    assert 1 / 3 < masks.shape[0] / masks.shape[1] < 3


@pytest.mark.parametrize("grid", [(1, 1), (4, 4000), (4000, 4), (1, 16384), (200, 110)])
def test_figures_of_any_shape(grid):
    shown, colors = cases([grid, (32, 32)])
    figure = figure_of(results_sheet, shown, colors, Style(names=["a", "b"]))
    assert max(figure.shape) < 3000
    assert (figure == (0, 0, 255)).all(-1).any()


@pytest.mark.parametrize(
    ("shown", "colors", "names"),
    [
        ([], [], None),
        (*cases([(4, 4), (4, 4)]), ["one"]),
        (cases([(4, 4)])[0], cases([(4, 4), (4, 4)])[1], None),
        (cases([(4, 4)])[0], [np.zeros((4, 4))], None),
        (cases([(4, 4)])[0], [np.zeros((0, 4, 3))], None),
    ],
)
def test_figures_refuse(shown, colors, names):
    with pytest.raises(OptionError):
        figure_of(results_sheet, shown, colors, Style(names=names))


def test_captions_are_shortened_in_the_middle():
    font = load_font(14)
    text = "IMG_20240711_holiday_at_the_lake_with_dog_0001.jpg"
    fit = partial(fit_lines, measure=lambda line: text_width(line, font), most=1)
    (short,) = fit(text, width=150)
    head, tail = short.split("…")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert font.getlength(short) <= 150 < font.getlength(text[: len(short)] + "wwww")
    assert fit("a.jpg", width=150) == ["a.jpg"]
    assert fit("two\nlines", width=150) == ["two lines"]
    assert fit(text, width=3) == []


# -- histogram -----------------------------------------------------------------------------------------------

TEAL, GREY = (33, 131, 128), (196, 201, 208)


def histogram(scores, *, threshold, side):
    inside = {"above": lambda: scores > threshold, "below": lambda: scores < threshold}
    kept = scores.size if side == "none" else int(np.count_nonzero(inside[side]()))
    return histogram_drawing(count_scores(scores), kept, threshold=threshold, side=side)()


def bars(figure: np.ndarray, color) -> np.ndarray:
    """Bar heights in pixels by column, within the axes."""
    return (figure[180:720, 120:1391] == color).all(-1).sum(0)


@pytest.mark.parametrize("side", ["above", "below"])
def test_histogram_colors_the_side_of_the_foreground(side):
    figure = histogram(np.linspace(0, 1, 1000), threshold=0.25, side=side)
    cut = 1270 * 0.25
    low, high = (TEAL, GREY) if side == "below" else (GREY, TEAL)
    assert np.flatnonzero(bars(figure, low)).max() < cut + 2
    assert np.flatnonzero(bars(figure, high)).min() > cut - 2


def test_histogram_heights_are_the_counts():
    scores = np.concatenate([np.full(4000, 0.105), np.full(1000, 0.505), np.full(1, 0.905)])
    heights = bars(histogram(scores, threshold=0.3, side="below"), TEAL)
    others = bars(histogram(scores, threshold=0.3, side="below"), GREY)
    assert heights.max() == pytest.approx(540 * 4000 / 4000, abs=3)
    # One bar per value, and the single patch is visible.
    assert len(runs(heights > 0)) == 1
    bars_right = [others[start] for start in np.flatnonzero(np.diff((others > 0).astype(int)) == 1) + 1]
    assert bars_right[0] == pytest.approx(540 * 1000 / 4000, abs=3)
    assert 3 <= bars_right[1] <= 5


def test_histogram_of_labels_has_the_object_below_the_background():
    labels = np.zeros((2, 1024), np.int64)
    labels[:, 512:520] = [[10], [30]]
    labels[1, 1016:] = 5
    figure = histogram_drawing(labels.sum(axis=0), 40, threshold=0.25, side="above", labels=labels)
    teal, grey = bars(figure(), TEAL), bars(figure(), GREY)
    at = np.flatnonzero(grey)
    assert len(runs(grey > 0)) == 1
    assert at.mean() == pytest.approx(1270 * 64.5 / 128, abs=2)
    assert teal[at].max() == pytest.approx(540 * 240 / 400, abs=3)
    assert grey.max() == pytest.approx(540 * 80 / 400, abs=3)
    column = figure()[180:720, 120 + at[len(at) // 2]]
    assert (column[-10] == TEAL).all()
    assert (column[540 * (400 - 300) // 400] == GREY).all()
    assert figure.caption().endswith("11% of all patches are foreground.")


@pytest.mark.parametrize(
    ("scores", "threshold", "side"),
    [
        (np.array([0.5]), 0.6, "above"),
        (np.array([1.0]), 0.0, "above"),
        (np.zeros(9), 0.0, "above"),
        (np.full(9, 0.3), None, "none"),
        (np.array([-2.0, 7.0]), 0.5, "below"),
        (np.array([0.2, 0.4]), 1.7, "above"),
        (np.array([0.2, 0.4], dtype=np.float16), 0.3, "above"),
        (np.ones((5, 6)), 1.0, "above"),
    ],
)
def test_histogram_of_degenerate_scores(scores, threshold, side):
    figure = histogram(scores, threshold=threshold, side=side)
    assert figure.shape == (840, 1440, 3)
    assert (bars(figure, TEAL) + bars(figure, GREY)).max() > 2


def test_histogram_of_ten_million_patches_is_quick():
    scores = np.random.default_rng(0).random(10**7, dtype=np.float32)
    start = time.perf_counter()
    histogram(scores, threshold=0.5, side="above")
    assert time.perf_counter() - start < 5


def test_nan_scores_are_refused():
    with pytest.raises(OptionError, match="NaN"):
        count_scores(np.array([0.1, np.nan]))
