"""The files of each result, and the functions that write them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.figure_options import FIGURE_FORMATS, FigureOptions
from patchprism.pictures.render import write_picture
from patchprism.support import checks
from patchprism.support.files import atomic_write
from patchprism.support.words import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from patchprism.pictures.options import PictureOptions

    Job = tuple[Path, Callable[[Path], None]]
    Draw = Callable[[], NDArray[np.uint8]]


def figure_jobs(results: Sequence[LensResult], folder: Path, options: PictureOptions) -> list[Job]:
    """The files for all photos together: figures and captions, tables, and shared arrays."""
    jobs: list[Job] = []
    for result in results:
        jobs += [_job(folder, stem, draw, options) for stem, draw in result.figures.items()]
        if result.figures:
            jobs.append(
                (folder / f"{result.name}.txt", partial(write_text, captions(result.figures, result.origin)))
            )
        jobs += [(folder / name, partial(write_text, text)) for name, text in result.tables.items()]
        if options.arrays and result.shared_arrays:
            jobs.append((folder / f"{result.name}.npz", partial(_arrays, result.shared_arrays)))
    return jobs


def photo_jobs(results: Sequence[LensResult], index: int, stem: Path, options: PictureOptions) -> list[Job]:
    """The files of one photo: ``<stem>.<lens>.<format>``, and with ``arrays`` ``<stem>.<lens>.npz``."""
    jobs: list[Job] = []
    for result in results:
        look = PhotoLook(
            result.pictures[index] if result.pictures else {}, result.arrays[index] if result.arrays else {}
        )
        jobs += look.jobs(result.name, stem, options)
    return jobs


def _job(folder: Path, stem: str, draw: Draw, options: PictureOptions) -> Job:
    """The file of a figure, or of a picture of one photo."""
    if isinstance(draw, Drawing):
        return folder / f"{stem}.{options.figures_as}", partial(draw.save, options=options)
    return folder / f"{stem}.{options.format}", partial(_draw, draw)


def captions(figures: Mapping[str, Drawing], origin: str = "") -> str:
    """Text of a file with captions: the name and caption of each figure, then what the figures were made from."""
    paragraphs = [f"{stem}\n{drawing.caption()}\n" for stem, drawing in figures.items()]
    return "\n".join([*paragraphs, *([f"{origin}\n"] if origin else [])])


def _draw(draw: Callable[[], NDArray[np.uint8]], path: Path) -> None:
    write_picture(path, draw())


def write_text(text: str, path: Path) -> None:
    """Write a text file, complete or not at all."""
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


def save_drawing(
    drawing: Drawing, path: str | os.PathLike[str], options: FigureOptions, origin: str = ""
) -> Path:
    """Write a figure, and its caption beside it as ``.txt``; returns the figure's path.

    Raises
    ------
    OptionError
        If the name does not end in the suffix of a figure format.
    OutputError
        If the figure cannot be written.
    """
    target = Path(checks.path("path", path))
    format = target.suffix.lower().lstrip(".")
    if format not in FIGURE_FORMATS:
        checks.refuse("path", f"a name that ends in {', '.join(f'.{each}' for each in FIGURE_FORMATS)}", path)
    if drawing.clear and format == "jpg":
        raise OptionError("path cannot end in .jpg, because this figure is transparent", option="path")
    drawing.save(target, options)
    write_text(f"{drawing.caption()} {origin}".rstrip() + "\n", target.with_suffix(".txt"))
    return target


@dataclass
class PhotoLook:
    """The result of a lens for one photo.

    Attributes
    ----------
    pictures : dict
        Functions that draw the photo's pictures. Keys are the part of the file name after the photo's stem.
    arrays : dict
        The photo's arrays by name.
    entry : JSON value
        Value from which the lens makes its report.
    """

    pictures: dict[str, Draw] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    entry: Any = None

    def jobs(self, lens: str, stem: Path, options: PictureOptions) -> list[Job]:
        """The photo's files: ``<stem>.<picture>.<format>``, and with ``arrays`` ``<stem>.<lens>.npz``."""
        jobs: list[Job] = [
            _job(stem.parent, f"{stem.name}.{suffix}", draw, options)
            for suffix, draw in self.pictures.items()
        ]
        if options.arrays and self.arrays:
            jobs.append((stem.with_name(f"{stem.name}.{lens}.npz"), partial(_arrays, self.arrays)))
        return jobs


@dataclass(kw_only=True, repr=False)
class LensResult:
    """The result of a lens; notebooks display its first figure.

    Attributes
    ----------
    name : str
        The lens.
    report : dict
        JSON values for ``report.json``.
    figures : dict of Drawing
        Objects that draw the figures of all photos, by the stem of the file. Drawing reads the photos again.
    pictures : list of dict
        For each photo, functions that draw its pictures. Keys are the part of the file name after the photo's stem.
        Empty if the pictures were written already.
    arrays : list of dict
        For each photo, its arrays by name. Empty if the arrays were written already.
    shared_arrays : dict
        Arrays that do not belong to a single photo.
    tables : dict
        Text files by name.
    origin : str
        Photos, network, weights and layer, for captions.
    """

    name: str
    report: dict[str, Any]
    figures: dict[str, Drawing] = field(default_factory=dict)
    pictures: list[dict[str, Draw]] = field(default_factory=list)
    arrays: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    shared_arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    origin: str = ""

    def picture(self, index: int | None = None) -> NDArray[np.uint8]:
        """The first figure, (H, W, 3) uint8, or the first picture of one photo, at the photo's resolution.

        Parameters
        ----------
        index : int, optional
            Index of a photo; negative numbers count from the end.

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
            raise OptionError(f"the lens {self.name} has no picture of photo {index}")
        return next(iter(drawn.values()))()

    def figure(
        self,
        name: str | None = None,
        *,
        dpi: int | None = None,
        width: float | str | None = None,
        columns: int | None = None,
        labels: str | Sequence[str] = ("names",),
        arrange: str = "beside",
        panels: str = "whole",
    ) -> Figure:
        """A figure as a Matplotlib figure, with its text as Matplotlib text.

        Parameters
        ----------
        name : str, optional
            One of :attr:`figures`; by default the first.
        dpi, width, columns, labels, arrange, panels
            As in :meth:`Visualization.save <patchprism.Visualization.save>`.

        Raises
        ------
        OptionError
            If there is no such figure, or an option has a value that is not allowed.
        """
        options = FigureOptions(
            dpi=dpi,
            width=width,
            columns=columns,
            labels=checks.texts("labels", labels),
            arrange=arrange,
            panels=panels,
        )
        return self._drawing(name).figure(options)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        dpi: int | None = None,
        width: float | str | None = None,
        columns: int | None = None,
        labels: str | Sequence[str] = ("names",),
        arrange: str = "beside",
        panels: str = "whole",
    ) -> Path:
        """Write a figure, and its caption to a text file with the same stem.

        Parameters
        ----------
        path : path
            Ends in ``.png``, ``.jpg``, ``.pdf`` or ``.svg``. An existing file is replaced.
        name : str, optional
            One of :attr:`figures`; by default the first.
        dpi, width, columns, labels, arrange, panels
            As in :meth:`Visualization.save <patchprism.Visualization.save>`.

        Returns
        -------
        Path
            The path of the figure.

        Raises
        ------
        OptionError
            If there is no such figure, or an option has a value that is not allowed.
        OutputError
            If a file cannot be written.
        """
        options = FigureOptions(
            dpi=dpi,
            width=width,
            columns=columns,
            labels=checks.texts("labels", labels),
            arrange=arrange,
            panels=panels,
        )
        return save_drawing(self._drawing(name), path, options, self.origin)

    def _drawing(self, name: str | None) -> Drawing:
        if not self.figures:
            raise OptionError(f"the lens {self.name} has no figure")
        return self.figures[
            checks.choice("name", name or next(iter(self.figures)), allowed=tuple(self.figures))
        ]

    def __repr__(self) -> str:
        arrays = dict.fromkeys([name for of_photo in self.arrays for name in of_photo])
        parts = [f"{len(self.pictures)} photos"] if len(self.pictures) > 1 else []
        parts += [counted(len(self.figures), "figure")] if len(self.figures) > 1 else []
        parts += [f"arrays {', '.join(arrays)}"] if arrays else []
        return f"LensResult({', '.join([self.name, *parts])})"

    def _repr_png_(self) -> bytes | None:
        """PNG for notebooks: the first figure."""
        return as_png(self.picture()) if self.figures else None
