"""The figures and files of a comparison."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import PatchPrismError
from patchprism.features.extraction import photo_names
from patchprism.features.store import StoredFeatures
from patchprism.jobs.figures import colors_said, foreground_said, kept_labels
from patchprism.jobs.working import tidied, working
from patchprism.photos.paths import unique_stems
from patchprism.photos.sources import StoredPhoto
from patchprism.pictures.captions import caption
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.options import PictureOptions
from patchprism.pictures.outputs import captions, write_text
from patchprism.pictures.sheet import MAX_GROUPS, Group, Panel, Sheet, map_panel, photo_panel
from patchprism.support import checks
from patchprism.support.files import atomic_write, refuse_what_is_read
from patchprism.support.folders import WORK, is_remote, local_path
from patchprism.support.written import Output, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from PIL import Image

    from patchprism.jobs.run import Run
    from patchprism.lenses.compared import Model
    from patchprism.lenses.comparison import Comparison
    from patchprism.support.folders import Folder

_NOTE = (
    "The residual is the share of the two cells' variance that remains after turning: 0 means identical, 1 means "
    "nothing in common. By chance: the residuals of the same fit to shuffled patches, and to maps shifted by half a "
    "photo, which are as smooth as the real ones. Two cells are alike if their residual is far below these, not "
    "because their colours agree."
)


def overview(comparison: Comparison, *, turned: bool) -> Drawing:
    """A photo with its colours in every cell, turned or as each prism fitted it."""
    return Drawing(partial(_overview, comparison, turned))


def photo_sheet(comparison: Comparison, index: int) -> Drawing:
    """One photo with a column per layer and two rows per model: colours turned, and colours as fitted."""
    return Drawing(partial(_photo_sheet, comparison, index))


def _overview(comparison: Comparison, turned: bool) -> Sheet:
    cells = comparison.cells
    names = comparison.photos.names
    shown = names[: max(1, MAX_GROUPS // (len(cells) + 1))]
    groups = [
        Group(
            (
                Panel(cells[0].parts[i].foreground.shape, partial(_shown, comparison, i)),
                *(_panel(comparison, c, i, turned=turned) for c in range(len(cells))),
            ),
            Path(name).name,
            i,
        )
        for i, name in enumerate(shown)
    ]
    heads = ("photo", *("\n".join(_cell_caption(comparison, c, turned=turned)) for c in range(len(cells))))
    notes = (
        (f"Colours turned to agree with {cells[0].label}.", _NOTE)
        if turned
        else (
            "Colours as each cell's own prism gives them.",
            "The same colour in two cells does not mean the same part, because each cell has its own prism.",
        )
    )
    return Sheet(groups, heads=heads, notes=notes, columns=1, total=len(names))


def _photo_sheet(comparison: Comparison, index: int) -> Sheet:
    layers, first = comparison.layers_a_model, comparison.cells[0]
    name = Path(comparison.photos.names[index]).name
    shown = Panel(first.parts[index].foreground.shape, partial(_shown, comparison, index))
    groups = []
    for start in range(0, len(comparison.cells), layers):
        for turned in (True, False):
            panels = [
                replace(
                    _panel(comparison, c, index, turned=turned),
                    captions=_cell_caption(comparison, c, turned=turned),
                )
                for c in range(start, start + layers)
            ]
            groups.append(Group((shown, *panels), caption(name, index + 1)))
    notes = (
        f"{caption(name, index + 1)}. Two rows per model: colours turned to agree with {first.label}, and colours as "
        "each prism fitted them.",
        _NOTE,
    )
    return Sheet(groups, columns=1, notes=notes)


def _shown(comparison: Comparison, index: int, size: tuple[int, int]) -> Image.Image:
    return photo_panel(comparison.photos.shown(index, comparison.framing), size)


def _panel(comparison: Comparison, cell: int, photo: int, *, turned: bool) -> Panel:
    each = comparison.cells[cell]
    colors = each.turned[photo] if turned else each.parts[photo].rgb
    return Panel(colors.shape[:2], lambda size: map_panel(colors, size))


def _cell_caption(comparison: Comparison, cell: int, *, turned: bool) -> tuple[str, ...]:
    """The label of a cell, and its residual after turning."""
    each = comparison.cells[cell]
    state, residual = "as fitted", ""
    if turned and each.turn is None:
        state = "the reference, not turned" if cell == 0 else "not turned: too few shared patches"
    elif turned and each.turn is not None:
        chance = [each.turn.residual_shuffled, each.turn.residual_shifted]
        by_chance = "/".join(f"{value:.2f}" for value in chance if value is not None)
        state, residual = "turned", f"residual {each.turn.residual:.2f}, by chance {by_chance}"
    return tuple(text for text in (each.model, f"{each.layer_label}, {state}", residual) if text)


def save_comparison(
    comparison: Comparison,
    out: str | os.PathLike[str],
    *,
    arrays: bool = False,
    format: str = "png",
    figure_format: str | None = None,
    dpi: int | None = None,
    width: float | str | None = None,
    columns: int | None = None,
    labels: str | Sequence[str] = ("names",),
    arrange: str = "beside",
    panels: str = "whole",
) -> list[Path] | list[str]:
    """Write figures and captions, ``compare.json``, and with ``arrays`` one ``<stem>.compare.npz`` per photo.

    Parameters
    ----------
    out : path
        A folder, created if it is missing, or an address that fsspec opens.
    arrays : bool
        Whether to write ``turned_N`` and ``fitted_N``, (h, w, 3) float32, and ``foreground_N``, (h, w) bool, for
        each cell N, counted from 1.
    format : {"png", "jpg"}
    figure_format, dpi, width, columns, labels, arrange, panels
        As in :meth:`Visualization.save <patchprism.Visualization.save>`.

    Raises
    ------
    OptionError
        If an option has a value that is not allowed.
    OutputError
        If a file cannot be written, or would replace one that PatchPrism did not write.
    """
    chosen = PictureOptions(
        format=format,
        arrays=arrays,
        figure_format=figure_format,
        dpi=dpi,
        width=width,
        columns=columns,
        labels=checks.texts("labels", labels),
        arrange=arrange,
        panels=panels,
    )
    return _save(comparison, out, chosen)


def _save(
    comparison: Comparison, out: str | os.PathLike[str], options: PictureOptions
) -> list[Path] | list[str]:
    from patchprism.jobs.view import lost_since
    from patchprism.jobs.writers import check_folder, paths_of, write_files, write_report
    from patchprism.lenses.comparison import Comparison

    if not isinstance(comparison, Comparison):
        checks.refuse("comparison", "a Comparison, the result of compare", comparison)
    out = checks.path("out", out)
    check_folder(out)
    options.check_labels(len(comparison.photos))
    folder, format = Path(), options.figures_as
    figures = {
        "compare": overview(comparison, turned=True),
        "compare-as-fitted": overview(comparison, turned=False),
    }
    jobs: list[tuple[Path, Callable[[Path], None]]] = [
        (folder / f"{name}.{format}", partial(drawing.save, options=options))
        for name, drawing in figures.items()
    ]
    jobs.append((folder / "compare.txt", partial(write_text, captions(figures, _made_from(comparison)))))
    for i, stem in enumerate(unique_stems([Path(name).name for name in comparison.photos.names])):
        sheet = photo_sheet(comparison, i)
        jobs.append((folder / f"{stem}.compare.{format}", partial(sheet.save, options=options)))
        if options.arrays:
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


def _made_from(comparison: Comparison) -> str:
    """Captions: the colours of each cell before turning, and what the colours of each model were made from."""
    cells = [
        f"{cell.label}. {foreground_said(cell.prism)} {colors_said(cell.prism)}" for cell in comparison.cells
    ]
    return "\n\n".join([*cells, *comparison.origins])


def _read(sources: Sequence[Any]) -> Iterator[str | os.PathLike[str]]:
    """The files that photos are read from, which must not be overwritten."""
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
        The result of :func:`~patchprism.lenses.compared.models_of`.
    out : path
        A folder or an address that fsspec opens.
    pictures : PictureOptions
        Only ``arrays``, ``format`` and the options of figures have an effect.
    notes : sequence of str
        Notes about the inputs of the job.
    large : bool
        Whether to keep tokens in a work folder in the output instead of in memory, so that the job can be resumed.
    """
    from patchprism.lenses.comparison import compare_models

    output, given = Output(out), models[0].given
    # Check the files before anything is computed. _save checks again when it is known which photos could be read.
    if isinstance(given, StoredFeatures):
        names, read = given.names, []
        refuse_what_is_read(
            out, [each.given.path for each in models if isinstance(each.given, StoredFeatures)]
        )
    else:
        names, read = photo_names(given), list(_read(given))
    pictures.check_labels(len(names))
    stems = unique_stems([Path(name).name for name in names])
    output.check(comparison_names(stems, arrays=pictures.arrays, format=pictures.figures_as), read)

    def done(work: Folder | None) -> tuple[Comparison, list[Path] | list[str]]:
        found = compare_models(models, run, work=work, notes=notes)
        return found, _save(found, out, kept_labels(pictures, names, found.photos.names))

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
    """Names of the files that :func:`save_comparison` writes for photos with these stems."""
    yield from ("compare.json", "compare.txt", f"compare.{format}", f"compare-as-fitted.{format}")
    for stem in stems:
        yield f"{stem}.compare.{format}"
        if arrays:
            yield f"{stem}.compare.npz"


def _arrays(comparison: Comparison, index: int, path: Path) -> None:
    arrays: dict[str, Any] = {}
    for n, cell in enumerate(comparison.cells, start=1):
        arrays[f"turned_{n}"] = cell.turned[index]
        arrays[f"fitted_{n}"] = cell.parts[index].rgb
        arrays[f"foreground_{n}"] = cell.parts[index].foreground
    with atomic_write(path) as part:
        np.savez_compressed(part, **arrays)
