"""``patchprism compare``: models and layers side by side, in colours that compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchprism.cli import EXIT_SOME_PHOTOS_FAILED, lens, many, options
from patchprism.cli.console import note, print_line, print_table, progress, say_notes, stdout
from patchprism.errors import OptionError
from patchprism.support.checks import said

if TYPE_CHECKING:
    from patchprism.lenses.comparison import Comparison

Models = Annotated[
    list[str],
    typer.Option(
        "--model", "-m", help="A model; give several to compare them.", rich_help_panel="The network"
    ),
]
Layers = Annotated[
    str,
    typer.Option(
        "--layer",
        metavar="N[,N...]",
        help="Layers of each model, counted from 0 or with -1 from the end.",
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


def parse_layers(text: str) -> list[int]:
    """Whole numbers apart by commas.

    Raises
    ------
    OptionError
        If it is anything else.

    Examples
    --------
    >>> parse_layers("2,5,-1")
    [2, 5, -1]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(
            f"layer must be whole numbers like 5,11, got {said(text)}", option="layer"
        ) from error


def compare(
    photos: options.Photos,
    out: options.Out,
    model: Models,
    layer: Layers = "-1",
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
    quiet: options.Quiet = False,
) -> None:
    """Compare models and layers: the same photos, in colours turned to agree.

    Writes compare (all photos), compare-as-fitted (the same before turning), a sheet of each photo, and
    compare.json with what turning leaves.
    """
    layers = parse_layers(layer)
    from patchprism.jobs.inputs import list_photos
    from patchprism.jobs.writers import check_output_options
    from patchprism.lenses.comparison import compare as run
    from patchprism.lenses.comparison_figures import comparison_names, save_comparison
    from patchprism.photos.paths import unique_stems
    from patchprism.support.reading import reading
    from patchprism.support.written import Output

    check_output_options(out, None, format)
    many.warn_if_inside(out, photos)
    with reading() as heard:
        listed = list_photos(photos)
    stems = unique_stems([path.name for path in listed])
    # Before anything is computed; once more when it is known which photos could be read.
    Output(out).check(comparison_names(stems, arrays=arrays, format=format), listed)
    with progress(quiet=quiet) as tell:
        found = run(
            listed,
            models=model,
            layers=layers,
            facet=facet or "token",
            final_norm=final_norm is not False,
            token_norm=token_norm or "none",
            preset=preset,
            size=size,
            range=options.parse_range(range),
            mean=options.parse_triple("mean", mean),
            std=options.parse_triple("std", std),
            threshold=options.parse_threshold(threshold),
            foreground=foreground,
            foreground_component=foreground_component,
            scaling=scaling,
            space=space,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            errors="report",
            progress=tell,
        )
        found.notes = heard.notes
        written = save_comparison(found, out, arrays=arrays, format=format)
    if quiet:
        for path in written:
            print(path)
    else:
        _summarise(found)
        print_line("wrote", f"{len(written)} files to {out}; look at {written[0]} first")
    say_notes(found.all_notes(), quiet=quiet)
    for failure in found.failures:
        note(f"failed: {failure.photo}: {failure.reason}")
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
