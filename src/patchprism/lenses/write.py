"""Which files lenses write, and what writes each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.files import atomic_write
from patchprism.render import write_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from patchprism.lenses.base import LensOptions, LensResult

    Job = tuple[Path, Callable[[Path], None]]


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
        if result.pictures:
            for suffix, draw in result.pictures[index].items():
                jobs.append((stem.with_name(f"{stem.name}.{suffix}.{format}"), partial(_draw, draw)))
        if arrays and result.arrays and result.arrays[index]:
            jobs.append(
                (stem.with_name(f"{stem.name}.{result.name}.npz"), partial(_arrays, result.arrays[index]))
            )
    return jobs


def file_names(
    names: Sequence[str], options: LensOptions, stems: Sequence[str], *, arrays: bool, format: str
) -> Iterator[str]:
    """Names of the files that lenses may write for photos of such stems, known before anything is computed."""
    points = len(options.at)
    for name in names:
        if name == "pca":
            continue
        drawn = [name]
        if name == "similarity" and points > 1:
            drawn = [f"{name}-{n + 1}" for n in range(points)]
        figures = list(drawn)
        if name == "attention":
            drawn.append("attention-heads")
            figures += [f"attention-at-{n + 1}" for n in range(points)]
        if name == "matches":
            drawn = []
            figures = [f"matches-{a}-{b}" for b in range(2, len(stems) + 1) for a in range(1, b)]
            yield "matches.csv"
        yield from (f"{figure}.{format}" for figure in figures)
        yield from (f"{stem}.{each}.{format}" for stem in stems for each in drawn)
        if arrays:
            yield f"{name}.npz"
            yield from (f"{stem}.{name}.npz" for stem in stems)


def _draw(draw: Callable[[], NDArray[np.uint8]], path: Path) -> None:
    write_picture(path, draw())


def _text(text: str, path: Path) -> None:
    with atomic_write(path) as part:
        part.write_bytes(text.encode("utf-8"))


def _arrays(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    with atomic_write(path) as part:
        np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
