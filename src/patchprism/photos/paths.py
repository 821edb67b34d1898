"""Which files are photos, and the names of their outputs."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.errors import OptionError, PhotoError
from patchprism.support.folders import system_reason
from patchprism.support.reading import note
from patchprism.support.written import is_ours

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".gif", ".bmp"),
    *(".jp2", ".j2k", ".jpx", ".avif"),
)
# These need an extra. Without it, a note says that such files in a folder are left out.
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_ADVICE = "HEIC: pip install 'patchprism[heif]'"
# Suffixes of files that are common beside photos (labels, tables, files of programs and of our own jobs). No note
# says that they are left out.
_COMPANIONS = frozenset(
    (
        *(".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html", ".pdf", ".log"),
        *(".db", ".ini", ".xmp", ".aae", ".py", ".ipynb", ".sh", ".lock", ".parquet"),
        *(".safetensors", ".prism", ".pt", ".pth"),
    )
)
# Number of suffixes that such a note names.
_MAX_KINDS = 8
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv"),
    *(".ts", ".m2ts", ".mts", ".3gp", ".ogv"),
)
# Advice for files that are not photos, by suffix.
_ADVICE = {
    **dict.fromkeys(VIDEO_SUFFIXES, "for videos, use `patchprism video`"),
    ".prism": "give a prism as prism=FILE",
    ".safetensors": "give a prism as prism=FILE, weights as weights=FILE",
    **dict.fromkeys((".pth", ".pt", ".ckpt"), "give weights as weights=FILE"),
    ".parquet": "this table is for other programs; give the feature store (.zarr) instead",
    ".html": "open a page in a browser",
}
# Windows, macOS and Linux allow 255 bytes or characters, and outputs add suffixes such as ".overlay.png".
_MAX_STEM_BYTES = 200


def find_photos(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The photo files that files, folders and patterns stand for.

    A name that exists is used as it is: a file with any suffix, or a folder with all photos in it and in its
    subfolders, except hidden ones. Any other name is a pattern, in which ``**`` matches folders of any depth. In
    folders and patterns, photos are recognised by their suffix and sorted by the numbers in their names (``dog2``
    before ``dog10``). Files that a job of PatchPrism wrote, according to the record in their folder, are left out.

    Parameters
    ----------
    inputs : sequence of path
        At least one file, folder or pattern.

    Returns
    -------
    list of Path
        In the given order; a photo that is found twice keeps its first position.

    Raises
    ------
    PhotoError
        If no photo is found for a name.
    OptionError
        If there are no names, or ``inputs`` is a string or path instead of a sequence.
    """
    if isinstance(inputs, (str, os.PathLike)) or not inputs:
        raise OptionError(
            f"photos must be a list of files, folders or patterns, at least one, got {inputs!r}"
        )
    found: dict[str, Path] = {}
    for item in inputs:
        for path in _matches(os.fspath(item)):
            found.setdefault(os.path.normcase(os.path.abspath(path)), path)
    return list(found.values())


def reads_heif() -> bool:
    """Whether the package that reads HEIC is installed."""
    return find_spec("pillow_heif") is not None


def photo_suffixes() -> tuple[str, ...]:
    """The suffixes of photos that can be read with the installed packages."""
    return PHOTO_SUFFIXES + (HEIF_SUFFIXES if reads_heif() else ())


def note_left_out(where: str, names: Iterable[str]) -> None:
    """Add a note with the number of files that are left out because their suffix is not that of a photo."""
    suffixes = [os.path.splitext(name)[1].lower() for name in names]
    counts = Counter(suffix for suffix in suffixes if suffix not in _COMPANIONS)
    if not counts:
        return
    kinds = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in counts.most_common(_MAX_KINDS)]
    if len(counts) > _MAX_KINDS:
        kinds.append(f"{sum(counts.values()) - sum(n for _, n in counts.most_common(_MAX_KINDS)):,} others")
    heif = counts.keys() & set(HEIF_SUFFIXES)
    how = f"; {HEIF_ADVICE}" if heif and not reads_heif() else ""
    note(f"left out of {photo_name(where)}: {', '.join(kinds)} (not readable{how})")


def unique_stems(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A stem for the outputs of each photo, such that no photo overwrites the outputs of another.

    The first photo with a stem keeps it. Later ones get ``-2``, ``-3`` and so on, but never the stem of another
    photo. Stems that differ only in case or Unicode form count as equal, because they are equal on many file systems.

    Returns
    -------
    list of str
        One stem per path, in the same order.

    Examples
    --------
    >>> unique_stems(["x/a.jpg", "y/a.png", "z/a-2.jpg"])
    ['a', 'a-3', 'a-2']
    """
    stems = [_shorten(Path(path).stem or "photo") for path in paths]
    natural, taken, result = {_fold(stem) for stem in stems}, set[str](), []
    next_number: dict[str, int] = {}
    for stem in stems:
        key, unique = _fold(stem), stem
        if key in taken:
            number = next_number.get(key, 2)
            while _fold(unique := f"{stem}-{number}") in natural | taken:
                number += 1
            next_number[key] = number + 1
        taken.add(_fold(unique))
        result.append(unique)
    return result


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a name such as ``/dev/stdin`` stands for a file that this process has open.

    In another process, it stands for another file.
    """
    return os.path.abspath(os.fsdecode(path)).startswith(("/dev/stdin", "/dev/fd/", "/proc/"))


def photo_name(source: object) -> str:
    """The name of a photo in errors and captions: its path as the user gave it, or ``"photo"``."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fsdecode(source)
    else:
        text = next(
            (v for a in ("filename", "name") if isinstance(v := getattr(source, a, None), str) and v), "photo"
        )
    # File names are bytes. A name that is not valid text must not make printing the error fail.
    return text.encode("utf-8", "replace").decode("utf-8")


def advice_on(name: str | os.PathLike[str]) -> str:
    """Advice for a file that is not a photo, from its name: ``"; ..."``, or an empty text.

    Examples
    --------
    >>> advice_on("clip.MP4"), advice_on("notes.txt")
    ('; for videos, use `patchprism video`', '')
    """
    advice = _ADVICE.get(Path(os.fsdecode(name)).suffix.lower())
    return f"; {advice}" if advice else ""


def _matches(item: str) -> list[Path]:
    path = Path(item)
    try:
        if path.is_dir():
            inside = _walk(item)
            if not inside:
                raise PhotoError(photo_name(item), f"no photo in this folder ({', '.join(photo_suffixes())})")
            return _without_ours(inside, item)
        if os.path.lexists(item):  # also a broken link, which is reported when it is read
            return [path]
        matched = [Path(match) for match in glob.iglob(item, recursive=True)] if glob.has_magic(item) else []
    except (OSError, ValueError, re.error) as error:
        raise PhotoError(photo_name(item), getattr(error, "strerror", None) or str(error)) from error
    files = [match for match in matched if match.is_file()]
    photos = [match for match in files if match.suffix.lower() in photo_suffixes()]
    if photos:
        note_left_out(item, (match.name for match in files if match.suffix.lower() not in photo_suffixes()))
    if not photos:
        raise PhotoError(
            photo_name(item),
            f"matches no photo{advice_on(item)}"
            if glob.has_magic(item)
            else f"no such file or folder{_advice_on_spaces(item)}",
        )
    return _without_ours(sorted(photos, key=_natural_key), item)


def _advice_on_spaces(item: str) -> str:
    """Advice for a missing file whose name looks like part of a name with a space; otherwise an empty text."""
    folder, name = os.path.split(item.rstrip("/"))
    try:
        beside = os.listdir(folder or ".") if name else []
    except OSError:
        return ""
    whole = min(
        (each for each in beside if each.startswith(f"{name} ") or each.endswith(f" {name}")), default=""
    )
    return (
        f'; is it "{photo_name(os.path.join(folder, whole))}"? Paths with spaces need quotes' if whole else ""
    )


def _without_ours(photos: list[Path], item: str) -> list[Path]:
    """The photos without the pictures that our jobs wrote."""
    by_folder = sorted(photos, key=lambda path: str(path.parent))
    ours = {path for path, wrote in zip(by_folder, is_ours(by_folder), strict=True) if wrote}
    left = [path for path in photos if path not in ours]
    if not left:
        raise PhotoError(photo_name(item), "holds only pictures that PatchPrism wrote, and no photo")
    return left


def _walk(folder: str) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise PhotoError(photo_name(error.filename or folder), system_reason(error))

    photos: list[Path] = []
    others: list[str] = []
    seen: set[str] = set()
    suffixes = photo_suffixes()
    for base, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        # Links to folders are followed, because data sets often contain them. No folder is visited twice.
        seen.add(os.path.realpath(base))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(base, name)) not in seen
        ]
        for name in files:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in suffixes:
                photos.append(Path(base, name))
            else:
                others.append(name)
    note_left_out(folder, others)
    return sorted(photos, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[list[tuple[int, int, str]]], str]:
    parts = [
        [
            (0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold())
            for piece in re.split(r"(\d+)", part)
            if piece
        ]
        for part in path.parts
    ]
    return parts, str(path)


def _fold(stem: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


def _shorten(stem: str) -> str:
    encoded = os.fsencode(stem)
    if len(encoded) <= _MAX_STEM_BYTES:
        return stem
    return encoded[:_MAX_STEM_BYTES].decode("utf-8", "ignore")
