"""Names of photos in figures, in any script: letters where a font on this machine has them, never empty boxes.

Pillow's own font has Latin letters alone. For other characters the fonts of Matplotlib and of the system are searched.
Where none has a character, the caption is the photo's number and its name with such characters spelt out
(``2: \\u65e5\\u672c.png``), which tells photos apart as well.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import ImageDraw, ImageFont


# Matplotlib's fonts of mathematical signs, whose letters are others than their numbers say, and one of boxes alone.
_NO_LETTERS = ("cm", "STIX", "Last Resort", "DejaVu Math")
# Words end with spaces, underscores, hyphens or an ellipsis; Chinese and Japanese are broken between any two signs.
_CJK = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORD = re.compile(f"[{_CJK}][ _…-]*|[^ _…{_CJK}-]+[ _…-]*|[ _…-]+")
# A line may also end before the ending of a file's name.
_ENDING = re.compile(r"\.[A-Za-z]\w{1,4}$")
# No font has this: what is drawn for it is drawn for every character that a font lacks.
_NOBODYS = "\U0010fffe"


def caption(text: str, number: int = 0) -> str:
    r"""A photo's name on one line as it can be drawn: as it is, or with the characters spelt out that no font has.

    Parameters
    ----------
    number : int
        The photo's number, which stands before a name that is spelt out; 0 for none.

    Examples
    --------
    >>> caption("dog\n$1.png"), caption("a\x07\udcff.png", 3)
    ('dog $1.png', '3: a\\x07\\udcff.png')
    """
    text = " ".join(text.split())
    if text.isascii() and text.isprintable():
        return text
    text = unicodedata.normalize("NFC", text)
    signs = [sign for sign in text if not _is_invisible(sign)]
    if all(map(_can_be_drawn, signs)):
        return "".join(signs)
    spelt = "".join(sign if _can_be_drawn(sign) else sign.encode("unicode_escape").decode() for sign in signs)
    return f"{number}: {spelt}" if number else spelt


def families_for(text: str, own: str) -> list[str]:
    """Names of the fonts that Matplotlib draws a caption with: ``own`` first, then those of letters that it lacks."""
    have = _letters_of(own)
    fonts = dict.fromkeys(_font_with(sign) for sign in text if ord(sign) not in have and not sign.isspace())
    return [name for found in fonts if found for name, path in _fonts() if path == found]


def text_width(text: str, font: ImageFont.FreeTypeFont) -> float:
    """Pixels that :func:`draw_text` takes."""
    return sum(face.getlength(run) for run, face in _runs(text, font))


def draw_text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, font: ImageFont.FreeTypeFont, fill: Any
) -> None:
    """Draw a caption from its upper left corner on; letters that ``font`` lacks in a font that has them."""
    x, y = place
    # Fonts differ in height: letters of one line stand on one line.
    base = y + font.getmetrics()[0]
    for run, face in _runs(text, font):
        draw.text((x, base), run, font=face, fill=fill, anchor="ls")
        x += face.getlength(run)


def fit_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A text no wider than ``width``: whole words are left out in its middle, since both ends tell photos apart.

    A single word that is wider is shortened itself.
    """
    lines = fit_lines(text, lambda shorter: text_width(shorter, font), width, most=1)
    return lines[0] if lines else ""


def fit_lines(text: str, measure: Callable[[str], float], width: float, *, most: int) -> list[str]:
    """A text in lines of at most ``width``, broken between words; words in its middle are left out if need be.

    Parameters
    ----------
    text : str
    measure : callable
        How wide a text is.
    width : float
    most : int
        Number of lines at most.
    """
    text = " ".join(text.split())

    def fits(shorter: str) -> list[str]:
        lines = _broken(shorter, measure, width)
        return lines if len(lines) <= most and all(measure(line) <= width for line in lines) else []

    if not text or (whole := fits(text)):
        return whole if text else []
    for parts in (_words(text), list(text)):
        head, tail = _ends(parts, lambda shorter: bool(fits(shorter)))
        # Of a text of many words both ends must be left; else its letters are counted.
        if head and (tail or len(parts) == len(text)):
            return fits(_elided(parts, head, tail))
    return []


def _ends(parts: Sequence[str], works: Callable[[str], bool]) -> tuple[int, int]:
    """How many parts fit before and after what is left out: as many as may be, about equally many."""
    low, high = 0, len(parts) - 1
    while low < high:
        middle = (low + high + 1) // 2
        fits = works(_elided(parts, (middle + 1) // 2, middle // 2))
        low, high = (middle, high) if fits else (low, middle - 1)
    head, tail = (low + 1) // 2, low // 2
    while head and head + tail < len(parts) - 1:
        more = [(head, tail + 1), (head + 1, tail)]
        longer = next((each for each in more if works(_elided(parts, *each))), None)
        if longer is None:
            break
        head, tail = longer
    return head, tail


def _words(text: str) -> list[str]:
    """A text in pieces that lines may be broken between."""
    return [found[0] for found in _WORD.finditer(text)]


def _elided(parts: Sequence[str], head: int, tail: int) -> str:
    return f"{''.join(parts[:head]).rstrip()}…{''.join(parts[len(parts) - tail :])}"


def _broken(text: str, measure: Callable[[str], float], width: float) -> list[str]:
    """A text in lines that end between words; a word that is wider than a line has one of its own."""
    lines = [""]
    ending = _ENDING.search(text)
    name = text[: ending.start()] if ending else text
    for word in [*_words(name), *([ending[0]] if ending else [])]:
        longer = lines[-1] + word
        if lines[-1] and measure(longer.rstrip()) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append(word)
        else:
            lines[-1] = longer
    lines[-1] = lines[-1].rstrip()
    return lines


def _runs(text: str, font: ImageFont.FreeTypeFont) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """A text in pieces, each with the font that has its letters."""
    if text.isascii():
        return [(text, font)] if text else []
    paths = [None if _in_own_font(sign) else _font_with(sign) for sign in text]
    for i in range(1, len(text) - 1):
        # Words of one script stay together: their order may be from the right.
        if text[i] == " " and paths[i - 1] == paths[i + 1]:
            paths[i] = paths[i - 1]
    runs = groupby(zip(paths, text, strict=True), lambda each: each[0])
    size = round(font.size)
    return [
        ("".join(sign for _, sign in run), font if path is None else face_at(path, size))
        for path, run in runs
    ]


def _is_invisible(sign: str) -> bool:
    """Joiners, marks of direction and the like: they would be boxes, or turn the line around."""
    return unicodedata.category(sign) == "Cf" or 0xFE00 <= ord(sign) <= 0xFE0F


def _can_be_drawn(sign: str) -> bool:
    return _in_own_font(sign) or _font_with(sign) is not None


@lru_cache(maxsize=4096)
def _in_own_font(sign: str) -> bool:
    """Whether Pillow's own font has a character."""
    if not _is_letter(sign):
        return False
    if sign.isspace():
        return True

    font = load_font(24)
    return bytes(font.getmask(sign)) != bytes(font.getmask(_NOBODYS))


@lru_cache(maxsize=4096)
def _font_with(sign: str) -> str | None:
    """The file of a font that has a character, None where there is none."""
    if not _is_letter(sign) or (_is_shaped(sign) and not _can_shape()):
        return None
    return next((path for _, path in _fonts() if ord(sign) in _letters_of(path) and _opens(path)), None)


def _is_letter(sign: str) -> bool:
    """Whether a character has a form at all: control characters and halves of a pair have none."""
    return unicodedata.category(sign) not in ("Cc", "Cs", "Cn", "Co", "Zl", "Zp")


def _is_shaped(sign: str) -> bool:
    """Whether a character is written from the right, or joined to its neighbours."""
    return unicodedata.bidirectional(sign) in ("R", "AL") or unicodedata.category(sign) in ("Mn", "Mc")


@lru_cache(maxsize=1)
def _can_shape() -> bool:
    from PIL import features

    return bool(features.check("raqm"))


@lru_cache(maxsize=1)
def _fonts() -> list[tuple[str, str]]:
    """Name and file of every font with letters: upright ones of usual weight first."""
    from matplotlib import font_manager

    def rank(entry: Any) -> tuple[Any, ...]:
        weight = entry.weight if isinstance(entry.weight, int) else 400
        return entry.style != "normal", abs(weight - 400), "Sans" not in entry.name, entry.name, entry.fname

    entries = [entry for entry in font_manager.fontManager.ttflist if not entry.name.startswith(_NO_LETTERS)]
    return [(entry.name, entry.fname) for entry in sorted(entries, key=rank)]


@lru_cache(maxsize=256)
def _letters_of(path: str) -> frozenset[int]:
    """The characters that a font has, by their numbers."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except Exception:  # fonts of other kinds; the file may be gone since the list was made
        return frozenset()


@lru_cache(maxsize=256)
def _opens(path: str) -> bool:
    """Whether Pillow can draw with a font: those of coloured pictures come in one size alone."""
    try:
        face_at(path, 15)
    except OSError:
        return False
    return True


@lru_cache(maxsize=256)
def face_at(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font file at a size in pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(path, size)


@lru_cache(maxsize=16)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, which every machine has."""
    from PIL import ImageFont as PILImageFont

    font = PILImageFont.load_default(size)
    assert isinstance(font, PILImageFont.FreeTypeFont)  # with a size it is never the bitmap font
    return font
