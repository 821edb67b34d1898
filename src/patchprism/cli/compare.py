"""``patchprism compare``: models and layers side by side, in colours that compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchprism.cli import EXIT_SOME_PHOTOS_FAILED, lens, many, options
from patchprism.cli.console import print_line, print_table, say_notes, stdout

if TYPE_CHECKING:
    from patchprism.lenses.comparison import Comparison

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A model; give several to compare them. Not for feature stores.",
        show_default=False,
        rich_help_panel="The network",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="FILE|URL|hf:REPO|default",
        help="Where the weights are; once per --model, in the same order. default: the model's official weights.",
        show_default=False,
        rich_help_panel="The network",
    ),
]
Given = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO",
        help="Photos: files, folders (with all below them), patterns or addresses like s3://...; or feature stores "
        "(.zarr) of the same photos.",
        show_default=False,
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layer",
        metavar="N[,N...]",
        help="Layers of each model, counted from 0 or with -1 from the end. Default: -1.",
        rich_help_panel="The network",
    ),
]
Arrays = Annotated[
    bool,
    typer.Option(
        "--arrays",
        help="Also write each photo's colours of every cell as .npz.",
        rich_help_panel="What comes out",
    ),
]


def compare(
    photos: Given,
    out: options.Out,
    model: Models = None,
    weights: Weights = None,
    layer: Layers = None,
    facet: options.Facet = None,
    final_norm: options.FinalNorm = None,
    token_norm: options.TokenNorm = None,
    preset: options.Preset = None,
    size: options.Size = None,
    range: options.Range = None,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    threshold: options.Threshold = None,
    foreground: options.Foreground = None,
    foreground_component: options.ForegroundComponent = None,
    scaling: options.Scaling = None,
    space: lens.Space = None,
    arrays: Arrays = False,
    format: options.Format = "png",
    engine: options.EngineName = "local",
    workers: options.Workers = None,
    quiet: options.Quiet = False,
) -> None:
    """Compare models, weights, layers or feature stores: the same photos, in colours turned to agree.

    Writes compare (all photos), compare-as-fitted (the same before turning), a sheet of each photo, and
    compare.json with what turning leaves.
    """
    # The settings that all models share; model and weights are each model's own.
    given = locals() | dict.fromkeys(("model", "weights", "components"))
    from patchprism.features.store import is_store
    from patchprism.jobs.writers import check_folder
    from patchprism.lenses.comparison import models_of
    from patchprism.lenses.comparison_figures import write_comparison
    from patchprism.pictures.picture import PictureOptions

    check_folder(out)
    pictures = PictureOptions(format=format, arrays=arrays)
    settings = options.settings_of(given)
    many.warn_if_inside(out, photos)
    files = None if weights is None else [None if each == "default" else each for each in weights]
    models, notes = models_of(photos, model, files, settings)
    large = not any(map(is_store, photos)) and many.is_large(photos, out, engine, workers, asked=False)
    with many.running(engine, workers, quiet=quiet, keeps=large) as run:
        found, written = write_comparison(models, out, run, pictures, notes=notes, large=large)
    if quiet:
        for path in written:
            print(path)
    else:
        _summarise(found)
        print_line("wrote", f"{len(written)} files to {out}; look at {written[0]} first")
    say_notes(found.all_notes(), quiet=quiet)
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
