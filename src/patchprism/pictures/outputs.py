"""What is written into a folder: the files of each result, and what writes them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError
from patchprism.pictures.render import write_picture
from patchprism.support import checks
from patchprism.support.files import atomic_write
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Job = tuple[Path, Callable[[Path], None]]
    Draw = Callable[[], NDArray[np.uint8]]


def figure_jobs(results: Sequence[LensResult], folder: Path, *, arrays: bool, format: str) -> list[Job]:
    """The files of all photos together: figures, tables, and arrays that belong to no one photo."""
    jobs: list[Job] = []
    for result in results:
        jobs += [(folder / f"{stem}.{format}", partial(_draw, draw)) for stem, draw in result.figures.items()]
        jobs += [(folder / name, partial(_text, text)) for name, text in result.tables.items()]
        if arrays and result.shared_arrays:
            jobs.append((folder / f"{result.name}.npz", partial(_arrays, result.shared_arrays)))
    return jobs


def photo_jobs(
    results: Sequence[LensResult], index: int, stem: Path, *, arrays: bool, format: str
) -> list[Job]:
    """The files of one photo: ``<stem>.<lens>.<format>``, and with ``arrays`` ``<stem>.<lens>.npz``."""
    jobs: list[Job] = []
    for result in results:
        look = PhotoLook(
            result.pictures[index] if result.pictures else {}, result.arrays[index] if result.arrays else {}
        )
        jobs += look.jobs(result.name, stem, arrays=arrays, format=format)
    return jobs


def _draw(draw: Callable[[], NDArray[np.uint8]], path: Path) -> None:
    write_picture(path, draw())


def _text(text: str, path: Path) -> None:
    with atomic_write(path) as part:
        part.write_bytes(text.encode("utf-8"))


def _arrays(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    with atomic_write(path) as part:
        np.savez_compressed(part, **arrays)  # type: ignore[arg-type]


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture, (H, W, 3) uint8, as a PNG file's bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class PhotoLook:
    """What a lens found in one photo.

    Attributes
    ----------
    pictures : dict
        What draws its pictures, by what follows the photo's stem in their names.
    arrays : dict
        Its arrays by name.
    entry : JSON value
        What the lens makes its report of.
    """

    pictures: dict[str, Draw] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    entry: Any = None

    def jobs(self, lens: str, stem: Path, *, arrays: bool, format: str) -> list[Job]:
        """Its files: ``<stem>.<picture>.<format>``, and with ``arrays`` ``<stem>.<lens>.npz``."""
        jobs: list[Job] = [
            (stem.with_name(f"{stem.name}.{suffix}.{format}"), partial(_draw, draw))
            for suffix, draw in self.pictures.items()
        ]
        if arrays and self.arrays:
            jobs.append((stem.with_name(f"{stem.name}.{lens}.npz"), partial(_arrays, self.arrays)))
        return jobs


@dataclass(kw_only=True, repr=False)
class LensResult:
    """What a lens found; a notebook shows its first figure. What draws reads photos again; everything else is computed.

    Attributes
    ----------
    name : str
        The lens.
    report : dict
        JSON values for ``report.json``.
    figures : dict
        What draws each figure of all photos, by the stem of its file.
    pictures : list of dict
        What draws the pictures of each photo, by what follows the photo's stem in their names. Empty where photos are
        written as they are looked at.
    arrays : list of dict
        The arrays of each photo by name; empty where pictures are.
    shared_arrays : dict
        Arrays that belong to no one photo.
    tables : dict
        Text files by name.
    """

    name: str
    report: dict[str, Any]
    figures: dict[str, Draw] = field(default_factory=dict)
    pictures: list[dict[str, Draw]] = field(default_factory=list)
    arrays: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    shared_arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)

    def picture(self, index: int | None = None) -> NDArray[np.uint8]:
        """The first figure, (H, W, 3) uint8; or the lens's first picture of one photo, at the photo's resolution.

        Parameters
        ----------
        index : int, optional
            A photo, counted from 0, or from the end with negative numbers.

        Raises
        ------
        OptionError
            If the lens has no picture of such a photo.
        """
        if index is None:
            return next(iter(self.figures.values()))()
        if not self.pictures:
            raise OptionError(f"the lens {self.name} has no pictures of single photos")
        place: int = checks.integer("index", index, low=-len(self.pictures), high=len(self.pictures) - 1)
        drawn = self.pictures[place]
        if not drawn:
            raise OptionError(f"the lens {self.name} was not asked for photo {index}")
        return next(iter(drawn.values()))()

    def __repr__(self) -> str:
        arrays = dict.fromkeys([name for of_photo in self.arrays for name in of_photo])
        said = [f"{len(self.pictures)} photos"] if len(self.pictures) > 1 else []
        said += [counted(len(self.figures), "figure")] if len(self.figures) > 1 else []
        said += [f"arrays {', '.join(arrays)}"] if arrays else []
        return f"LensResult({', '.join([self.name, *said])})"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the first figure."""
        return as_png(self.picture()) if self.figures else None
