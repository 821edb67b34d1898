"""Names of photos in figures, in any script, without empty boxes for missing characters.

Pillow's own font has only Latin letters. Other characters are taken from the fonts of Matplotlib and of the system. If
no font has a character, it is escaped, and the photo's number is added in front: ``2: \\u65e5\\u672c.png``.
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


# Fonts to ignore: Matplotlib's mathematical fonts, whose glyphs do not match their code points, and a font of boxes.
_NO_LETTERS = ("cm", "STIX", "Last Resort", "DejaVu Math")
# Words end with spaces, underscores, hyphens or an ellipsis; Chinese and Japanese can be broken after any character.
_CJK = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORD = re.compile(f"[{_CJK}][ _…-]*|[^ _…{_CJK}-]+[ _…-]*|[ _…-]+")
# A line may also end before a file's suffix.
_ENDING = re.compile(r"\.[A-Za-z]\w{1,4}$")
# No font has this character, so it is drawn with the glyph for missing characters.
_IN_NO_FONT = "\U0010fffe"


def caption(text: str, number: int = 0) -> str:
    r"""A photo's name as one line that can be drawn; characters that no font has are escaped.

    Parameters
    ----------
    number : int
        The photo's number, which is put before a name with escaped characters; 0 for none.

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
    escaped = "".join(
        sign if _can_be_drawn(sign) else sign.encode("unicode_escape").decode() for sign in signs
    )
    return f"{number}: {escaped}" if number else escaped


def families_for(text: str, own: str) -> list[str]:
    """Names of fonts for the characters of a caption that the font file ``own`` lacks, as Matplotlib's fallbacks."""
    have = _letters_of(own)
    fonts = dict.fromkeys(_font_with(sign) for sign in text if ord(sign) not in have and not sign.isspace())
    return [name for found in fonts if found for name, path in _fonts() if path == found]


def text_width(text: str, font: ImageFont.FreeTypeFont) -> float:
    """Width in pixels of text that :func:`draw_text` draws."""
    return sum(face.getlength(run) for run, face in _runs(text, font))


def draw_text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, font: ImageFont.FreeTypeFont, fill: Any
) -> None:
    """Draw a caption at its upper left corner, with other fonts for letters that ``font`` lacks."""
    x, y = place
    # Fonts differ in height, so align their baselines.
    base = y + font.getmetrics()[0]
    for run, face in _runs(text, font):
        draw.text((x, base), run, font=face, fill=fill, anchor="ls")
        x += face.getlength(run)


def fit_lines(text: str, measure: Callable[[str], float], width: float, *, most: int) -> list[str]:
    """Break a text into lines of at most ``width``; if it is too long, words in its middle are left out.

    The middle is left out because photos differ at both ends of their names. A single word that is too wide is
    shortened in the same way.

    Parameters
    ----------
    text : str
    measure : callable
        Returns the width of a text.
    width : float
    most : int
        Maximum number of lines.
    """
    text = " ".join(text.split())

    def fits(shorter: str) -> list[str]:
        lines = _broken(shorter, measure, width)
        return lines if len(lines) <= most and all(measure(line) <= width for line in lines) else []

    if not text or (whole := fits(text)):
        return whole if text else []
    for parts in (_words(text), list(text)):
        head, tail = _ends(parts, lambda shorter: bool(fits(shorter)))
        # Words are left out of the middle if words at both ends remain; otherwise letters are left out.
        if head and (tail or len(parts) == len(text)):
            return fits(_elided(parts, head, tail))
    return []


def _ends(parts: Sequence[str], works: Callable[[str], bool]) -> tuple[int, int]:
    """Largest numbers of parts that fit before and after the gap, about equally many."""
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
    """Break a text into lines between words; a word that is wider than a line gets a separate line."""
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
    """Split a text into pieces, each with a font that has its letters."""
    if text.isascii():
        return [(text, font)] if text else []
    paths = [None if _in_own_font(sign) else _font_with(sign) for sign in text]
    for i in range(1, len(text) - 1):
        # Keep words of one script together, because they may be written from right to left.
        if text[i] == " " and paths[i - 1] == paths[i + 1]:
            paths[i] = paths[i - 1]
    runs = groupby(zip(paths, text, strict=True), lambda each: each[0])
    size = round(font.size)
    return [
        ("".join(sign for _, sign in run), font if path is None else face_at(path, size))
        for path, run in runs
    ]


def _is_invisible(sign: str) -> bool:
    """Joiners, direction marks and similar characters, which would be drawn as boxes or reverse the line."""
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
    return bytes(font.getmask(sign)) != bytes(font.getmask(_IN_NO_FONT))


@lru_cache(maxsize=4096)
def _font_with(sign: str) -> str | None:
    """The file of a font that has a character; None if there is none."""
    if not _is_letter(sign) or (_is_shaped(sign) and not _can_shape()):
        return None
    return next((path for _, path in _fonts() if ord(sign) in _letters_of(path) and _opens(path)), None)


def _is_letter(sign: str) -> bool:
    """Whether a character can be drawn at all; control characters and surrogates, for example, cannot."""
    return unicodedata.category(sign) not in ("Cc", "Cs", "Cn", "Co", "Zl", "Zp")


def _is_shaped(sign: str) -> bool:
    """Whether a character is written from right to left, or combined with its neighbours."""
    return unicodedata.bidirectional(sign) in ("R", "AL") or unicodedata.category(sign) in ("Mn", "Mc")


@lru_cache(maxsize=1)
def _can_shape() -> bool:
    from PIL import features

    return bool(features.check("raqm"))


@lru_cache(maxsize=1)
def _fonts() -> list[tuple[str, str]]:
    """Name and file of every font with letters: upright ones of regular weight first."""
    from matplotlib import font_manager

    def rank(entry: Any) -> tuple[Any, ...]:
        weight = entry.weight if isinstance(entry.weight, int) else 400
        return entry.style != "normal", abs(weight - 400), "Sans" not in entry.name, entry.name, entry.fname

    entries = [entry for entry in font_manager.fontManager.ttflist if not entry.name.startswith(_NO_LETTERS)]
    return [(entry.name, entry.fname) for entry in sorted(entries, key=rank)]


@lru_cache(maxsize=256)
def _letters_of(path: str) -> frozenset[int]:
    """The code points that a font has."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except Exception:  # an unsupported kind of font, or a file that was deleted after Matplotlib listed it
        return frozenset()


@lru_cache(maxsize=256)
def _opens(path: str) -> bool:
    """Whether Pillow can draw with a font; colour bitmap fonts, for example, exist only in one size."""
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
    """Pillow's own font, which is available on every machine."""
    from PIL import ImageFont as PILImageFont

    font = PILImageFont.load_default(size)
    assert isinstance(font, PILImageFont.FreeTypeFont)  # with a size it is never the bitmap font
    return font
