"""``patchprism compare``: models and layers side by side, in matching colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from patchprism.cli import many, options
from patchprism.cli.console import print_line, print_notes, print_table, stdout
from patchprism.cli.exits import EXIT_SOME_PHOTOS_FAILED
from patchprism.cli.options import ColoringOptions, Running
from patchprism.cli.takes import only, takes, without
from patchprism.features.options import TokenOptions
from patchprism.jobs.settings import Settings
from patchprism.pictures.figure_options import FIGURE_OPTIONS
from patchprism.pictures.options import PictureOptions
from patchprism.prism.options import MASK_OPTIONS
from patchprism.support import checks
from patchprism.support.options import MODEL, Checked, left_open, option, same

if TYPE_CHECKING:
    from patchprism.lenses.comparison import Comparison

Given = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO",
        help="Photos: files, folders (with all subfolders), patterns or addresses like s3://...; or "
        "feature stores (.zarr) of the same photos.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Compared(Checked):
    """The models that are compared, and their layers."""

    model: tuple[str, ...] = option(
        (),
        check=checks.texts,
        flag="--model -m",
        metavar="NAME",
        help="Model to compare; repeat it for each model. Feature stores need none.",
        panel=MODEL,
    )
    weights: tuple[str, ...] = option(
        (),
        check=checks.texts,
        metavar="FILE|URL|hf:REPO|default",
        help="Weights of each model. Repeat it once per --model, in the same order; default stands "
        "for the official weights.",
        panel=MODEL,
    )
    layer: int | tuple[int, ...] | None = left_open(
        TokenOptions,
        "layer",
        help="Layers of each model to compare: 0 is the first, -1 the last. Default: -1, or 8 for focus_vits14.",
    )

    def files(self) -> list[str | None] | None:
        """The weights of each model, with None for the official ones; None if no weights are given."""
        return [None if each == "default" else each for each in self.weights] or None


@dataclass(frozen=True, kw_only=True)
class SheetOptions(PictureOptions):
    """Which files are written."""

    arrays: bool = same(
        PictureOptions, "arrays", help="Also write the colours of each photo in every cell as .npz."
    )


@takes(
    compared=Compared,
    settings=without(Settings, "model", "weights", "layer", "components", *MASK_OPTIONS),
    pictures=only(SheetOptions, "arrays", "format", *FIGURE_OPTIONS),
    coloring=only(ColoringOptions, "fetch_from"),
    running=without(Running, "resume"),
)
def compare(
    photos: Given,
    compared: Compared,
    settings: Settings,
    pictures: SheetOptions,
    coloring: ColoringOptions,
    running: Running,
    out: options.Out = options.OUT,
) -> None:
    """Compare models, weights, layers or feature stores on the same photos, in matching colours.

    Writes compare (all photos), compare-as-fitted (before the colours are matched), a sheet of each photo, and
    compare.json with the differences that remain.
    """
    from patchprism.features.store import is_store
    from patchprism.jobs.writers import check_folder
    from patchprism.lenses.compared import models_of
    from patchprism.lenses.comparison_figures import write_comparison

    check_folder(out)
    many.warn_if_inside(out, photos)
    shared = replace(settings, layer=compared.layer)
    models, notes = models_of(
        photos, list(compared.model) or None, compared.files(), shared, coloring.fetch_from
    )
    large = not any(map(is_store, photos))
    large = large and many.is_large(photos, out, running.engine, running.workers, asked=False)
    with many.running(running.engine, running.workers, quiet=running.quiet, keeps=large) as run:
        found, written = write_comparison(models, out, run, pictures, notes=notes, large=large)
    if running.quiet:
        for path in written:
            print(path)
    else:
        _summarise(found)
        print_line("wrote", f"{len(written)} files to {out}; look at {written[0]} first")
    print_notes(found.all_notes(), quiet=running.quiet)
    many.note_not_fetched(found.unasked)
    many.warn_of_failures(found.failures)
    if found.failures:
        raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)


def _summarise(found: Comparison) -> None:
    rows = []
    for i, cell in enumerate(found.cells):
        turn = cell.turn
        if turn is None:
            rows.append(
                (cell.model, str(cell.layer), "the reference" if i == 0 else "not turned", "", "", "")
            )
            continue
        shifted = "" if turn.residual_shifted is None else f"{turn.residual_shifted:.3f}"
        by_chance = f"{turn.residual_shuffled:.3f}", shifted
        rows.append((cell.model, str(cell.layer), f"{turn.residual:.3f}", *by_chance, f"{cell.clipped:.0%}"))
    columns = [("model", "left"), ("layer", "right"), ("residual", "right"), ("shuffled patches", "right")]
    columns += [("shifted maps", "right"), ("clipped", "right")]
    print_table("", columns, rows, console=stdout())
