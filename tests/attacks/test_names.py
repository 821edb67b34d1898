"""Names of photos in figures: any script, characters with a meaning for Matplotlib, and undecodable bytes."""

from __future__ import annotations

import itertools
import os
import sys
import warnings

import numpy as np
import pytest
from figures_drawn import figure_of
from PIL import Image, ImageDraw
from toys import Toy

import patchprism
from patchprism.lenses.comparison import compare
from patchprism.lenses.comparison_figures import overview, photo_sheet
from patchprism.lenses.looking import look_through
from patchprism.lenses.options import LensOptions
from patchprism.pictures import captions
from patchprism.pictures.captions import caption, draw_text, fit_lines, load_font, text_width
from patchprism.pictures.figures import Style, results_sheet

NAMES = [
    "a$b^$c.png", "run_$a_1$.png", "50%_{}\\alpha.png", "#&~^_.png", "[red]x[/].png", "<b onclick=x>.png",
    "two\nlines.png", "bell\x07.png", "a\udcff.png", "\u65e5\u672c\u8a9e.png", "\u0444\u043e\u0442\u043e.png",
    "\u0635\u0648\u0631\u0629 \u0643\u0644\u0628.png", "\u0928\u092e\u0938\u094d\u0924\u0947.png",
    "\U0001f436.png", "a\u202egnp.png", "\ufdd0.png", "x" * 240 + ".png",
]  # fmt: skip


def drawn(text, font=None):
    font = font or load_font(20)
    image = Image.new("L", (max(1, round(text_width(text, font)) + 4), 40), 255)
    draw_text(ImageDraw.Draw(image), (0, 0), text, font, 0)
    return np.asarray(image)


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_has_letters_and_no_boxes(name):
    shown = caption(name, 7)
    assert "\n" not in shown
    shown.encode()  # it can be encoded
    # Fonts draw the same box for all characters that they lack, so no letter may look like it.
    for _, font in [(None, load_font(20)), *captions._runs(shown, load_font(20))]:
        box = bytes(font.getmask("\U0010fffe"))
        for run, face in captions._runs(shown, load_font(20)):
            if face is font:
                assert all(bytes(face.getmask(sign)) != box for sign in run if not sign.isspace()), (
                    shown,
                    run,
                )
    assert drawn(shown).min() < 128


def test_characters_without_a_font_are_escaped_after_the_photos_number(monkeypatch):
    monkeypatch.setattr(captions, "_fonts", list)
    captions._font_with.cache_clear()
    try:
        assert caption("\u65e5\u672c.png", 2) == "2: \\u65e5\\u672c.png"
        assert caption("\u65e5\u672c.png") == "\\u65e5\\u672c.png"
    finally:
        captions._font_with.cache_clear()


def test_letters_come_from_a_font_that_has_them():
    pytest.importorskip("matplotlib")
    assert (
        caption("\u0444\u043e\u0442\u043e.png", 2) == "\u0444\u043e\u0442\u043e.png"
    )  # DejaVu Sans is part of Matplotlib
    faces = [face.getname()[0] for _, face in captions._runs("\u0444\u043e\u0442\u043e.png", load_font(20))]
    assert faces[0] != faces[1] == load_font(20).getname()[0]
    assert not any(name.startswith(("cm", "Last Resort")) for name, _ in captions._fonts())


def test_words_from_right_to_left_stay_together():
    text = "\u0635\u0648\u0631\u0629 \u0643\u0644\u0628.png"
    if caption(text) != text:
        pytest.skip("no font or no shaping here")
    assert [run for run, _ in captions._runs(text, load_font(20))] == [text[:8], ".png"]


def test_shortened_captions_fit():
    font = load_font(20)
    for name in NAMES:
        lines = fit_lines(caption(name, 3), lambda line: text_width(line, font), 90, most=1)
        assert all(text_width(line, font) <= 90 for line in lines)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Photos with these names, if the file system allows them."""
    folder = tmp_path_factory.mktemp("named")
    y, x = np.mgrid[:24, :32]
    for i, name in enumerate(NAMES):
        disc = ((y - 12) ** 2 + (x - 10 - i % 8) ** 2 < 60)[..., None]
        photo = np.where(disc, [230, 120, 20], [40, 90, 160]) + (7 * x % 40 + 5 * y % 30)[..., None]
        Image.fromarray(photo.astype(np.uint8)).save(folder / "next.png")
        try:
            os.rename(folder / "next.png", folder / name)
        except (OSError, ValueError, UnicodeError):
            continue
    (folder / "next.png").unlink(missing_ok=True)
    return folder


def test_every_figure_works_with_every_name(named, tmp_path):
    view = patchprism.visualize([named], backbone=Toy(), size=32)
    assert len(view) > 8
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")  # Matplotlib's warning about missing characters
        figure = view.figure()
        figure.savefig(tmp_path / "figure.png")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert not any(text.get_parse_math() or text.get_usetex() for text in axes.texts)
    for i, name in enumerate(view.names):
        shown = caption(os.path.basename(name), i + 1)
        # A long name is broken into lines; if it is a single word, its middle is left out.
        start, end = shown[:8], shown[-8:]
        assert (
            shown in texts
            or any(a.startswith(start) and b.endswith(end) for a, b in itertools.pairwise([*texts, ""]))
            or any(text.startswith(start) and "…" in text for text in texts)
        ), shown
    view.save(tmp_path / "out")
    found = look_through(
        view, ["norm", "clusters", "similarity", "matches"], LensOptions(at=("1:10,10",), clusters=2)
    )
    for result in found:
        for draw in list(result.figures.values())[:3]:
            draw()
    assert "<b onclick" not in view.explore(title="<b onclick=x>\udcff").html


def test_a_comparison_works_with_every_name(named):
    found = compare([named], models=[Toy()], layers=[0, -1], size=32)
    overview(found, turned=True)()
    for i in range(len(found.photos)):
        photo_sheet(found, i)()


def test_names_that_differ_only_in_a_number_differ_in_the_picture(monkeypatch):
    monkeypatch.setattr(captions, "_fonts", list)
    captions._font_with.cache_clear()
    photo = np.zeros((8, 8, 3), np.uint8)

    def bytes_of(name):
        return figure_of(results_sheet, [photo], [np.zeros((2, 2, 3))], Style(names=[name])).tobytes()

    try:
        assert bytes_of("\u65e5\u672c") != bytes_of("\u672c\u65e5")
    finally:
        captions._font_with.cache_clear()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not allow such names")
def test_the_terminal_shows_names_as_they_are(tmp_path, monkeypatch, capsys):
    from rich.console import Console

    from patchprism.cli import console

    monkeypatch.setattr(console, "stdout", lambda make=console.stdout: make())
    console.print_table("", [("photo", "left")], [["[red]a[/] :dog:.png"]], console=console.stdout())
    console.print_line("wrote", "[/] [bold]:dog: \x1b[2J")
    out = capsys.readouterr().out
    assert "[red]a[/] :dog:.png" in out
    assert "wrote   [/] [bold]:dog: ?[2J" in out
    assert isinstance(console.stdout(), Console)


def test_a_bar_shows_markup_as_text(monkeypatch, capsys):
    import sys as system

    from patchprism.cli.console import progress

    monkeypatch.setattr(system.stderr, "isatty", lambda: True, raising=False)
    with progress(quiet=False) as tell:
        tell("fetching hf:[/] [red]", 0, None)
        tell("fetching hf:[/] [red]", 1, 2)
