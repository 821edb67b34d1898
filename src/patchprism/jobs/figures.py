"""The figures of all photos of a job: which photos they show, how large, and what their captions say."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.jobs.crops import crop_at
from patchprism.jobs.source import read_all, rows_of
from patchprism.pictures.drawing import Drawing, check_size
from patchprism.pictures.figures import MAX_PHOTOS, Style, fg_mask_sheet, results_sheet
from patchprism.pictures.histogram import histogram_drawing
from patchprism.pictures.layout import lay_out
from patchprism.pictures.page import Picture
from patchprism.pictures.sheet import Group, Panel, Sheet
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.opened import Opened
    from patchprism.jobs.report import Colored
    from patchprism.pictures.options import PictureOptions
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.estimator import Prism


def seed_columns(colored: Colored, total: int) -> tuple[int | None, int | None]:
    """Photos per row in ``results`` and ``fg_mask`` of the seed preset (its script: one, and a square), else None."""
    if colored.opened.settings.get("preset") != "seed":
        return None, None
    most = ((6, 1), (12, 2), (27, 3), (60, 4), (100, 5), (float("inf"), 7))
    shown = min(total, MAX_PHOTOS)
    return next(columns for count, columns in most if shown <= count), int(np.ceil(np.sqrt(shown)))


def kept_labels(options: PictureOptions, given: Sequence[str], kept: Iterable[str]) -> PictureOptions:
    """The options with the labels of only those photos that could be read.

    Parameters
    ----------
    options : PictureOptions
    given : sequence of str
        Names of all photos, in the order of their labels.
    kept : iterable of str
        Names of some of them, in the same order.
    """
    if not options.own_labels or len(options.own_labels) != len(given):
        return options
    pairs = iter(zip(given, options.own_labels, strict=True))
    labels = tuple(next((label for name, label in pairs if name == wanted), "") for wanted in kept)
    return replace(options, labels=labels) if labels else options


def plan(
    rows: Sequence[PhotoRow], total: int, options: PictureOptions, columns: tuple[int | None, int | None]
) -> list[tuple[int, int]]:
    """Maximum width and height in pixels at which figures show each photo; nothing is drawn.

    Parameters
    ----------
    rows : sequence of PhotoRow
        The photos that figures show.
    total : int
        Number of photos of the job.
    options : PictureOptions
    columns : tuple of int or None
        As :func:`seed_columns` gives them.

    Raises
    ------
    OptionError
        If the number of labels is not that of the photos, or a figure would be too large.
    """
    options.check_labels(total)
    scale = options.resolution / 72
    sizes = [(1, 1)] * len(rows)

    def nothing(size: tuple[int, int]) -> Any:
        raise AssertionError("nothing is drawn")

    for panels, in_a_row in ((2, columns[0]), (1, columns[1])):
        groups = [
            Group((Panel(row.grid, nothing),) * panels, Path(row.name).name, i) for i, row in enumerate(rows)
        ]
        page = lay_out(Sheet(groups, columns=in_a_row, total=total), options, lambda text, size: 0.0)
        check_size(page, options)
        shown = [item for item in page.items if isinstance(item, Picture)][::panels]
        for i, (item, row) in enumerate(zip(shown, rows, strict=True)):
            # A square panel is cut out of a photo whose shorter edge is as long as the panel.
            high = item.height * max(1.0, row.grid[0] / row.grid[1] if options.panels == "square" else 1.0)
            high *= scale
            wide = high * row.grid[1] / row.grid[0]
            sizes[i] = max(sizes[i][0], round(wide)), max(sizes[i][1], round(high))
    return sizes


@dataclass
class FirstPhotos:
    """The photos that figures show: the first ones, each crop only as large as a figure needs it.

    Attributes
    ----------
    total : int
        Number of photos of the job.
    columns : tuple of int or None
        As :func:`seed_columns` gives them.
    shown : list of ndarray
        Crops, each (h, w, 3) uint8; plain grey where a photo is gone.
    gone : set of str
        Photos of a store that are missing or have changed.
    lost : dict
        Other photos that are gone or replaced, and why.
    """

    total: int
    columns: tuple[int | None, int | None]
    names: list[str] = field(default_factory=list)
    shown: list[NDArray[np.uint8]] = field(default_factory=list)
    parts: list[PhotoColors] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)


def first_photos(colored: Colored, total: int, options: PictureOptions) -> FirstPhotos:
    """Read the photos that figures show; ``total`` is the number of photos of the job."""
    source = colored.opened.source
    first = FirstPhotos(total, seed_columns(colored, total))
    sizes = plan(list(islice(rows_of(source), MAX_PHOTOS)), total, options, first.columns)
    for index, (row, tokens) in enumerate(islice(read_all(source), MAX_PHOTOS)):
        shown, reason = crop_at(source, row, colored.opened.framing, sizes[index])
        if shown is None:
            if reason is None:
                first.gone.add(row.name)
            else:
                first.lost[row.name] = reason
            side = 8 if row.grid[0] * row.grid[1] < 1 << 16 else 1
            shown = np.full((row.grid[0] * side, row.grid[1] * side, 3), 128, np.uint8)
        first.names.append(Path(row.name).name)
        first.shown.append(shown)
        parts = colored.parts
        first.parts.append(colored.prism.split(tokens, name=row.name) if parts is None else parts[index])
    return first


def overview(
    colored: Colored,
    first: FirstPhotos,
    counts: NDArray[np.int64],
    inside: int,
    options: PictureOptions,
) -> dict[str, Drawing]:
    """Functions that draw the figures, by the name of the file.

    Parameters
    ----------
    colored : Colored
    first : FirstPhotos
    counts : ndarray
        Patches of all photos by score, as :func:`~patchprism.pictures.histogram.count_scores` gives them.
    inside : int
        Number of patches in the foreground.
    options : PictureOptions
        Only ``outline``, ``background``, ``upsample`` and the options of figures have an effect.
    """
    prism, parts = colored.prism, first.parts
    side: Any = prism.side_
    scores, masks = [part.score for part in parts], [part.foreground for part in parts]
    outlines = masks if options.outline else None
    clear = options.background == "transparent"
    told = _notes(colored)
    style = Style(names=first.names, total=first.total, upsample=options.upsample, columns=first.columns[0])
    results = partial(
        results_sheet,
        first.shown,
        [part.rgb for part in parts],
        replace(style, notes=told["results"]),
        outlines=outlines,
        foregrounds=masks,
        background=options.background,
    )
    raw = partial(
        results_sheet,
        first.shown,
        [part.rgb_all for part in parts],
        replace(style, notes=told["results_raw"]),
        outlines=outlines,
    )
    upsample = "nearest" if options.upsample == "auto" else options.upsample
    mask = partial(
        fg_mask_sheet,
        first.shown,
        scores,
        masks,
        replace(style, notes=told["fg_mask"], upsample=upsample, columns=first.columns[1]),
        side=side,
        outline=options.outline,
    )
    threshold = None if side == "none" else prism.threshold_
    return {
        "fg_mask": Drawing(mask, clear=clear, options=options),
        "results": Drawing(results, clear=clear, options=options),
        "results_raw": Drawing(raw, clear=clear, options=options),
        "histogram": histogram_drawing(
            counts,
            inside,
            threshold=threshold,
            side=side,
            labels=prism.label_counts if colored.fitted_here and prism.method_ == "object" else None,
            options=options,
        ),
    }


def origin_of(opened: Opened, n_photos: int, n_patches: int) -> str:
    """Photos, network, weights and layer, in sentences for captions."""
    settings, record = opened.settings, opened.record
    given = f"{counted(n_photos, 'photo')} with {n_patches:,} patches"
    if record.source == "own features":
        return f"{given}; features of your own."
    layer = settings.get("layer", -1)
    layers = [layer] if isinstance(layer, int) else list(layer or [])
    said = ", ".join(str(each % record.depth if record.depth else each) for each in layers)
    last = (
        "the last layer"
        if layers == [-1]
        else f"layer{'s' if len(layers) > 1 else ''} {said} (counted from 0)"
    )
    facet = settings.get("facet", "token")
    norm = "" if settings.get("final_norm", True) else ", without the final norm"
    grid = "".join(
        text.format(settings[key])
        for key, usual, text in (
            ("token_norm", "none", ", at unit length"),
            ("stride", record.patch_size, ", stride {}"),
            ("tile", None, ", in windows of {} pixels"),
            ("refine", 1, ", on a grid refined {} times"),
        )
        if settings.get(key) not in (None, usual)
    )
    preset = ", preset seed" if settings.get("preset") == "seed" else ""
    return f"{given}; model {record.title}, weights from {opened.weights}; {facet}s of {last}{norm}{grid}{preset}."


def _notes(colored: Colored) -> dict[str, tuple[str, ...]]:
    """Explanations for the caption of each figure."""
    prism = colored.prism
    kept = foreground_said(prism)
    three = [_share(prism.scene_ratio_, n) for n in (1, 2, 3)]
    return {
        "fg_mask": (
            "Each photo with the score of its patches laid over it; patches of the background are shown at 0"
            f"{', and one minus the score elsewhere' if prism.side_ == 'below' else ''}.",
            kept,
        ),
        "results": (
            "Each photo beside the colours of its foreground: principal components of the foreground's patches "
            "of all photos.",
            colors_said(prism),
            kept,
        ),
        "results_raw": (
            "Each photo beside the colours of all patches: the first three principal components of all patches "
            f"of all photos, which explain {', '.join(three)} of their variance.",
            *(
                ()
                if prism.side_ == "none"
                else ("Patches of the background take their photo's smallest value.",)
            ),
        ),
    }


def foreground_said(prism: Prism) -> str:
    """The definition of the foreground, in a sentence."""
    if prism.side_ == "none":
        return "All patches are kept."
    return f"Foreground: score {prism.side_} {prism.threshold_:.3g}."


def colors_said(prism: Prism) -> str:
    """The meaning of the colours and their explained variance, in a sentence."""
    names = [f"component {abs(n)}{' with its sign reversed' if n < 0 else ''}" for n in prism.components]
    shares = [_share(prism.object_ratio_, abs(n)) for n in prism.components]
    return (
        f"Red, green and blue are {', '.join(names)}, which explain {', '.join(shares)} of the foreground's variance; "
        f"scaling {prism.scaling}, colours in {prism.space}."
    )


def _share(ratios: NDArray[np.float64], component: int) -> str:
    return f"{float(ratios[component - 1]):.1%}" if component <= len(ratios) else "nothing"
