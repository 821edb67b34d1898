"""Figures: layout, texts and formats, and options that are refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

import patchprism
from patchprism.errors import OptionError
from patchprism.jobs.figures import kept_labels
from patchprism.pictures.captions import fit_lines
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.figure_options import FigureOptions
from patchprism.pictures.figures import fg_mask_sheet, results_sheet, tint
from patchprism.pictures.layout import lay_out, partition
from patchprism.pictures.options import PictureOptions
from patchprism.pictures.page import Picture, Text
from patchprism.pictures.palette import class_colors, seen
from patchprism.pictures.sheet import Bar, Group, Key, Panel, Sheet

pytestmark = pytest.mark.figures_at_size

GRIDS = [(32, 48), (32, 32), (48, 32), (32, 51), (20, 40)]


def plain(size):
    return Image.new("RGB", size, (200, 30, 30))


def sheet_of(grids=GRIDS, panels=2, **more):
    groups = [Group((Panel(grid, plain),) * panels, f"photo {i}", i) for i, grid in enumerate(grids)]
    return Sheet(groups, **more)


def measure(text, size):
    return 0.55 * size * len(text)


def laid(sheet, **options):
    page = lay_out(sheet, FigureOptions(**options), measure)
    return page, [item for item in page.items if isinstance(item, Picture)]


def rows_of(pictures):
    rows = {}
    for item in pictures:
        rows.setdefault(round(item.y, 3), []).append(item)
    return list(rows.values())


@pytest.mark.parametrize("columns", [2, 3])
def test_rows_have_equal_heights_and_fill_the_width(columns):
    page, pictures = laid(sheet_of(GRIDS[:4]), width=6, columns=columns)
    assert page.width == pytest.approx(6 * 72)
    rows = rows_of(pictures)
    assert [len(row) for row in rows] == ([4, 4] if columns == 2 else [6, 2])
    for row in rows[: -1 if columns == 3 else None]:
        assert len({round(item.height, 6) for item in row}) == 1
        assert row[0].x == 0
        assert row[-1].x + row[-1].width == pytest.approx(page.width)
    for item, (h, w) in zip(pictures[::2], GRIDS, strict=False):
        assert item.width / item.height == pytest.approx(w / h)


def test_photos_stand_above_their_colors():
    _, pictures = laid(sheet_of(), width=6, arrange="above", columns=5)
    for photo, colors in zip(pictures[::2], pictures[1::2], strict=True):
        assert photo.x == colors.x
        assert photo.y + photo.height < colors.y
    assert len({round(item.height, 6) for item in pictures}) == 1


def test_squares_are_cut_from_the_middle():
    def halves(size):
        panel = Image.new("RGB", size, (255, 0, 0))
        panel.paste((0, 0, 255), (size[0] // 2, 0, *size))
        return panel

    sheet = Sheet([Group((Panel((10, 40), halves),), "a", 0)])
    _, (item,) = laid(sheet, panels="square", width=2)
    assert item.width == pytest.approx(item.height)
    drawn = np.asarray(item.draw((100, 100)))
    assert drawn.shape == (100, 100, 3)
    assert drawn[50, 45, 0] == 255
    assert drawn[50, 55, 2] == 255


def test_up_to_four_photos_are_600_pixels_high_at_two_pixels_per_point():
    for count in (1, 2, 3, 4):
        for arrange in ("beside", "above"):
            _, pictures = laid(sheet_of(GRIDS[:count]), arrange=arrange)
            assert min(item.height for item in pictures) * 2 >= 600


def test_labels_are_none_names_or_texts():
    def texts(**options):
        page, _ = laid(sheet_of(GRIDS[:2]), **options)
        return [item.text for item in page.items if isinstance(item, Text)]

    assert texts() == ["photo 0", "photo 1"]
    assert texts(labels=("none",)) == []
    assert texts(labels=("corgi", "shiba")) == ["corgi", "shiba"]
    with pytest.raises(OptionError, match="one text per photo, got 3 for 2 photos"):
        Drawing(lambda: sheet_of(GRIDS[:2]))(FigureOptions(labels=("a", "b", "c")))


def test_all_text_lies_within_the_page():
    long = "a-very-long-name of_a_photo " * 4
    bars = (Bar(f"{long} in units", "the least of all of them", "the most of all of them"),)
    keys = tuple(Key((1, 2, 3), f"cluster {n}: 3 %") for n in range(30))
    groups = [Group((Panel((3, 2), plain, (long,)),) * 2, long, i) for i in range(5)]
    for width in (1.5, 3.25, 20):
        page, _ = laid(Sheet(groups, bars=bars, keys=keys, total=9), width=width)
        for item in page.items:
            if isinstance(item, Text):
                wide = measure(item.text, item.size) * {"l": 1, "m": 0.5, "r": 0}[item.anchor]
                assert item.x + wide <= page.width + 0.5, item
                assert (
                    item.x - measure(item.text, item.size) * {"l": 0, "m": 0.5, "r": 1}[item.anchor] >= -0.5
                )
                assert item.y <= page.height
                assert item.size >= 6


def test_lines_are_broken_between_words():
    def width(text):
        return float(len(text))

    assert fit_lines("holiday_at the-lake", width, 10, most=2) == ["holiday_at", "the-lake"]
    (line,) = fit_lines("IMG_2024_holiday_at_the_lake_0001.jpg", width, 20, most=1)
    head, tail = line.split("…")
    assert re.fullmatch(r"(IMG_)?(2024_)?", head)
    assert tail in ("0001.jpg", "lake_0001.jpg")
    assert fit_lines("日本語の写真", width, 3, most=2) == ["日本語", "の写真"]
    assert fit_lines("x" * 50, width, 10, most=1) == ["xxxxx…xxxx"]
    # In a narrow column, the start and the end of the name remain.
    assert fit_lines("p0001.jpg", width, 5, most=2) == ["p0001", ".jpg"]
    assert fit_lines("a_very_long_name_0123456789.png", width, 15, most=2) == [
        "a_very_…name_",
        "0123456789.png",
    ]
    assert fit_lines("a cosine of 0.25", width, 14, most=2) == ["a cosine of", "0.25"]
    assert fit_lines("Eileen Collins with models.png", width, 10, most=2) == ["Eileen…", "models.png"]


@pytest.mark.parametrize("stacked", [False, True])
def test_narrow_columns_keep_every_word_of_the_figures_own_texts(stacked):
    said = "layer 7, the reference, not turned by chance"
    sheet = sheet_of(GRIDS[1:2] * 2, panels=5, heads=("photo", *[f"model\n{said}"] * 4), columns=1)
    page, pictures = laid(sheet, width=82 / 25.4, arrange="above" if stacked else "beside")
    texts = [item for item in page.items if isinstance(item, Text)]
    assert not any("…" in item.text for item in texts)
    if not stacked:
        assert " ".join(item.text for item in texts if item.x == pictures[1].x).startswith(f"model {said}")
        for item in texts:
            others = [other.x for other in texts if other.y == item.y and other.x > item.x]
            assert (
                item.x + measure(item.text, item.size) < min(others, default=page.width + 9) - item.size / 4
            )


def test_rows_are_divided_into_nearly_equal_widths():
    assert partition([1.0] * 12, shape=4 / 3) == [4, 8, 12]
    assert partition([3.0, 1.0, 1.0, 1.0, 3.0], shape=1) == [1, 4, 5]


@pytest.mark.parametrize(
    "options",
    [
        {"width": "3.25"}, {"width": "3.25 inches"}, {"width": 0}, {"width": "-3in"}, {"width": "900in"},
        {"width": float("nan")}, {"dpi": 0}, {"dpi": 100000}, {"columns": 0}, {"figure_format": "gif"},
        {"arrange": "below"}, {"panels": "round"}, {"labels": ()}, {"background": "transparent", "format": "jpg"},
        {"background": "transparent", "figure_format": "jpg"},
    ],
)  # fmt: skip
def test_options_that_are_refused(options):
    with pytest.raises(OptionError) as error:
        PictureOptions(**options)
    assert "\n" not in str(error.value)


def test_labels_of_photos_that_cannot_be_read_are_left_out():
    options = PictureOptions(labels=("a", "b", "c", "d"))
    assert kept_labels(options, ["1", "2", "2", "4"], ["1", "2", "4"]).labels == ("a", "b", "d")
    assert kept_labels(options, ["1", "2", "3"], ["1", "2"]) == options  # too many: refused later
    assert kept_labels(PictureOptions(), ["1", "2"], ["1"]) == PictureOptions()


def test_lengths():
    widths = [FigureOptions(width=each).width for each in ("3.25in", "82.55 mm", "8.255cm", "234pt", 3.25)]
    assert widths == pytest.approx([3.25] * 5)
    assert FigureOptions(width="82mm").resolution == 300
    assert FigureOptions().resolution == 144


@pytest.mark.parametrize("options", [{"width": 100, "dpi": 2400}, {"width": 0.5, "columns": 1, "dpi": 2400}])
def test_figures_that_are_too_large_are_refused_before_they_are_drawn(options):
    def never(size):
        raise AssertionError("drawn")

    sheet = Sheet([Group((Panel((4, 1), never),), "a", n) for n in range(100)])
    with pytest.raises(OptionError, match=r"dpi must be smaller: a figure would have [\d,]+ x [\d,]+ pixels"):
        Drawing(lambda: sheet)(FigureOptions(**options))
    with pytest.raises(OptionError, match="or use fewer columns"):
        Drawing(lambda: sheet)(FigureOptions(columns=100, dpi=2400))


@pytest.fixture(scope="module")
def view():
    tokens = np.random.default_rng(0).normal(size=(3, 6, 8, 16))
    tokens[:, 2:5, 2:6, :3] += 4
    return patchprism.visualize(features=tokens)


def test_formats(view, tmp_path):
    view.save(tmp_path, figure_format="pdf", width="82mm", dpi=100)
    pdf = (tmp_path / "results.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Type0" in pdf  # text stays text, with an embedded font
    assert float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf)[1]) == pytest.approx(82 / 25.4 * 72, abs=0.01)
    caption = (tmp_path / "results.txt").read_text("utf-8")
    assert "explain" in caption
    assert "Patches of the background take their photo's smallest value." in caption
    drawing = view.figures()["results"]
    for name in ("a.svg", "b.svg"):
        drawing.save(tmp_path / name, FigureOptions(width=3))
    svg = (tmp_path / "a.svg").read_text("utf-8")
    assert ">photo-2</text>" in svg
    assert svg == (tmp_path / "b.svg").read_text("utf-8")
    drawing.save(tmp_path / "c.jpg", FigureOptions(width=3, dpi=50))
    with Image.open(tmp_path / "c.jpg") as picture:
        assert picture.width == 150
        assert picture.info["dpi"] == (50, 50)


def test_a_lens_saves_its_figure_and_caption(view, tmp_path):
    result = view.clusters(3)
    assert result.save(tmp_path / "c.png", width=2, labels="none") == tmp_path / "c.png"
    text = (tmp_path / "c.txt").read_text("utf-8")
    assert "3 clusters" in text
    assert "own features" in text or "features of your own" in text
    assert result.figure(width=4).get_size_inches()[0] == 4
    with pytest.raises(OptionError, match="path must be a name that ends in"):
        result.save(tmp_path / "c.gif")
    with pytest.raises(OptionError, match="name must be one of clusters"):
        result.figure("other")


def test_backgrounds():
    shown = [np.full((16, 16, 3), 77, np.uint8)]
    colors = [np.zeros((2, 2, 3), np.float32)]
    mask = np.array([[True, False], [True, False]])
    colors[0][mask] = (1, 0, 0)

    def right(background):
        sheet = results_sheet(shown, colors, foregrounds=[mask], background=background)
        picture = np.asarray(sheet.groups[0].panels[1].draw((20, 20)))
        assert tuple(picture[10, 2, :3]) == (255, 0, 0)
        return tuple(picture[10, 17])

    assert right("black") == (0, 0, 0)
    assert right("grey") == (128, 128, 128)
    assert right("white") == (255, 255, 255)
    assert right("photo") == (77, 77, 77)
    assert right("transparent")[3] == 0


def test_a_transparent_figure_has_no_background(view):
    figures = view.figures(PictureOptions(background="transparent", width=3, dpi=72))
    drawn = figures["results"]()
    assert drawn.shape[2] == 4
    assert drawn[-1, -1, 3] == 0
    picture = view.picture(0, background="transparent")
    assert picture.shape[2] == 4
    inside = view.foreground[0].repeat(14, 0).repeat(14, 1) if picture.shape[0] == 84 else None
    if inside is not None:
        np.testing.assert_array_equal(picture[..., 3] == 255, inside)


def test_the_bar_of_fg_mask_shows_the_tint():
    colors = tint()
    assert (
        colors[0].astype(int) - colors[-1] > 120
    ).all()  # half of the photo, which is white above and black below
    score = np.array([[0.0, 1.0]], np.float32)
    mask = np.array([[True, True]])
    for photo, row in ((255, 0), (0, -1)):
        sheet = fg_mask_sheet([np.full((14, 28, 3), photo, np.uint8)], [score], [mask])
        panel = np.asarray(sheet.groups[0].panels[0].draw((28, 14)))
        for x, place in ((3, 0), (24, -1)):
            assert np.abs(panel[7, x].astype(int) - colors[row, place]).max() <= 2
    below = fg_mask_sheet([np.zeros((14, 28, 3), np.uint8)], [score], [mask], side="below").bars[0]
    assert (below.low, below.high) == ("1 (and background)", "0")


def test_classes_can_be_distinguished_with_every_kind_of_vision():
    colors = class_colors(12)
    np.testing.assert_array_equal(class_colors(5), colors[:5])
    for places in seen(colors):
        distances = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(len(colors))
        assert distances.min() > 0.06  # three times the smallest visible difference
    # Grey looks the same with every kind of vision.
    np.testing.assert_allclose(
        seen(np.full((1, 3), 0.5))[1:], seen(np.full((1, 3), 0.5))[:1].repeat(2, 0), atol=1e-3
    )
