"""What a comparison looks like, and the files that it makes."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import PatchPrismError
from patchprism.features.extraction import photo_names
from patchprism.features.store import StoredFeatures
from patchprism.jobs.working import tidied, working
from patchprism.photos.paths import unique_stems
from patchprism.photos.sources import StoredPhoto
from patchprism.pictures.captions import caption
from patchprism.pictures.options import PictureOptions
from patchprism.pictures.render import write_picture
from patchprism.pictures.sheet import Cell, cell_of, map_panel, panel_size, photo_panel, sheet
from patchprism.support import checks
from patchprism.support.files import atomic_write, refuse_what_is_read
from patchprism.support.folders import WORK, is_remote, local_path
from patchprism.support.written import Output, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.jobs.run import Run
    from patchprism.lenses.compared import Model
    from patchprism.lenses.comparison import Comparison
    from patchprism.support.folders import Folder

_NOTE = (
    "A residual is the share of the two cells' variance that turning leaves: 0 the same, 1 nothing in common. By "
    "chance: what the same fit leaves of shuffled patches, and of maps shifted by half a photo, which are as smooth as "
    "the real ones. Likeness is the gap to these, not the agreement of the colours."
)


def overview(comparison: Comparison, *, turned: bool) -> NDArray[np.uint8]:
    """A row a photo, a column a cell, turned or as each prism fitted it."""
    cells, first = comparison.cells, comparison.cells[0]
    box = 224 if len(cells) <= 5 else 160
    panels = []
    for i, name in enumerate(comparison.photos.names):
        size = panel_size(first.parts[i].foreground.shape, box)
        panels.append(cell_of([_shown(comparison, i, size)], (caption(Path(name).name, i + 1),)))
        panels += [_cell(comparison, c, i, size, turned=turned) for c in range(len(cells))]
    title = (
        f"colours turned to agree with {first.label}"
        if turned
        else "colours as each cell's own prism has them"
    )
    notes = (
        [_NOTE]
        if turned
        else ["One colour in two cells need not be one part: each cell has colours of its own."]
    )
    return sheet(panels, columns=len(cells) + 1, title=title, notes=notes)


def photo_sheet(comparison: Comparison, index: int) -> NDArray[np.uint8]:
    """One photo: models down, layers across; of each model a row turned and one as fitted."""
    layers, first = comparison.layers_a_model, comparison.cells[0]
    size = panel_size(first.parts[index].foreground.shape, 208)
    panels = []
    for start in range(0, len(comparison.cells), layers):
        for turned in (True, False):
            panels += [_cell(comparison, start + n, index, size, turned=turned) for n in range(layers)]
    return sheet(
        panels,
        columns=layers,
        title=caption(Path(comparison.photos.names[index]).name, index + 1),
        notes=[
            f"Of each model, above turned to agree with {first.label}, below as each prism fitted it.",
            _NOTE,
        ],
    )


def _shown(comparison: Comparison, index: int, size: tuple[int, int]) -> Any:
    return photo_panel(comparison.photos.shown(index, comparison.framing), size)


def _cell(comparison: Comparison, cell: int, photo: int, size: tuple[int, int], *, turned: bool) -> Cell:
    each = comparison.cells[cell]
    colors = each.turned[photo] if turned else each.parts[photo].rgb
    said, left = "as fitted", ""
    if turned and each.turn is None:
        said = "the reference, not turned" if cell == 0 else "not turned: too few shared patches"
    elif turned and each.turn is not None:
        chance = [each.turn.residual_shuffled, each.turn.residual_shifted]
        by_chance = "/".join(f"{value:.2f}" for value in chance if value is not None)
        said, left = "turned", f"residual {each.turn.residual:.2f}, by chance {by_chance}"
    return cell_of([map_panel(colors, size)], (each.model, f"{each.layer_label}, {said}", left))


def save_comparison(
    comparison: Comparison, out: str | os.PathLike[str], *, arrays: bool = False, format: str = "png"
) -> list[Path] | list[str]:
    """Write the figures, ``compare.json``, and with ``arrays`` a ``<stem>.compare.npz`` a photo.

    Parameters
    ----------
    out : path
        A folder, made if it is missing, or an address that fsspec opens.
    arrays : bool
        ``turned_N`` and ``fitted_N``, (h, w, 3) float32, and ``foreground_N``, (h, w) bool, of the cells from 1.
    format : {"png", "jpg"}

    Raises
    ------
    OptionError
        If an option has a value that is not allowed.
    OutputError
        If a file cannot be written, or would replace one that PatchPrism did not write.
    """
    from patchprism.jobs.view import lost_since
    from patchprism.jobs.writers import check_folder, paths_of, write_files, write_report
    from patchprism.lenses.comparison import Comparison

    if not isinstance(comparison, Comparison):
        checks.refuse("comparison", "a Comparison, as compare gives one", comparison)
    out = checks.path("out", out)
    check_folder(out)
    chosen = PictureOptions(format=format, arrays=arrays)
    arrays, format = chosen.arrays, chosen.format
    folder = Path()
    jobs: list[tuple[Path, Callable[[Path], None]]] = [
        (folder / f"compare.{format}", partial(_draw, partial(overview, comparison, turned=True))),
        (folder / f"compare-as-fitted.{format}", partial(_draw, partial(overview, comparison, turned=False))),
    ]
    for i, stem in enumerate(unique_stems([Path(name).name for name in comparison.photos.names])):
        jobs.append(
            (folder / f"{stem}.compare.{format}", partial(_draw, partial(photo_sheet, comparison, i)))
        )
        if arrays:
            jobs.append((folder / f"{stem}.compare.npz", partial(_arrays, comparison, i)))
    read = list(_read(comparison.photos.sources))
    names = [*(path.name for path, _ in jobs), "compare.json"]
    output = Output(out)
    output.claim(names, read)
    write_files(output, jobs)
    comparison.failures += lost_since(comparison.photos, comparison.failures)
    write_report(output, "compare.json", comparison.report() | {"files": as_json(output.written)})
    output.finish()
    return paths_of(output, names)


def _read(sources: Sequence[Any]) -> Iterator[str | os.PathLike[str]]:
    """The files that photos are read from, which must not be written."""
    for source in sources:
        if isinstance(source, StoredPhoto):
            yield from source.paths
        elif isinstance(source, (str, os.PathLike)):
            yield source


def write_comparison(
    models: Sequence[Model],
    out: str | os.PathLike[str],
    run: Run,
    pictures: PictureOptions,
    *,
    notes: Sequence[str] = (),
    large: bool = False,
) -> tuple[Comparison, list[Path] | list[str]]:
    """Compare models and write what :func:`save_comparison` writes; photos that cannot be read are left out.

    Parameters
    ----------
    models : sequence of Model
        As :func:`~patchprism.lenses.compared.models_of` gives them.
    out : path
        A folder or an address.
    pictures : PictureOptions
        Its ``arrays`` and ``format`` count.
    notes : sequence of str
        What is to be said of the job's inputs.
    large : bool
        Keep tokens in a work folder of the output rather than in memory: the same command resumes the job.
    """
    from patchprism.lenses.comparison import compare_models

    output, given = Output(out), models[0].given
    # Before anything is computed; once more when it is known which photos could be read.
    if isinstance(given, StoredFeatures):
        names, read = given.names, []
        refuse_what_is_read(
            out, [each.given.path for each in models if isinstance(each.given, StoredFeatures)]
        )
    else:
        names, read = photo_names(given), list(_read(given))
    stems = unique_stems([Path(name).name for name in names])
    output.check(comparison_names(stems, arrays=pictures.arrays, format=pictures.format), read)

    def done(work: Folder | None) -> tuple[Comparison, list[Path] | list[str]]:
        found = compare_models(models, run, work=work, notes=notes)
        return found, save_comparison(found, out, arrays=pictures.arrays, format=pictures.format)

    if not large:
        return done(None)
    work, before = output.folder.below(WORK), not is_remote(out) and local_path(out).exists()
    try:
        with working(work, output.folder.name) as held, tidied(work.below("model-1"), held):
            result = done(work)
            held.end()
    except PatchPrismError:
        if not before and not is_remote(out):
            with suppress(OSError):  # not empty
                local_path(out).rmdir()
        raise
    return result


def comparison_names(stems: Sequence[str], *, arrays: bool, format: str) -> Iterator[str]:
    """Names of the files that :func:`save_comparison` writes for photos of such stems."""
    yield from ("compare.json", f"compare.{format}", f"compare-as-fitted.{format}")
    for stem in stems:
        yield f"{stem}.compare.{format}"
        if arrays:
            yield f"{stem}.compare.npz"


def _draw(draw: Callable[[], NDArray[np.uint8]], path: Path) -> None:
    write_picture(path, draw())


def _arrays(comparison: Comparison, index: int, path: Path) -> None:
    arrays: dict[str, Any] = {}
    for n, cell in enumerate(comparison.cells, start=1):
        arrays[f"turned_{n}"] = cell.turned[index]
        arrays[f"fitted_{n}"] = cell.parts[index].rgb
        arrays[f"foreground_{n}"] = cell.parts[index].foreground
    with atomic_write(path) as part:
        np.savez_compressed(part, **arrays)
