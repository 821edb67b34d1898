"""``patchprism evaluate``: the foreground against true masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchprism.cli import lens, options

TrueMasks = Annotated[
    str,
    typer.Option(
        "--masks", metavar="DIR", help="Folder of true masks: PNG, named as the photos; 0 is background."
    ),
]
JsonOut = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Also write the measures and settings to this file."),
]


def evaluate(
    photos: options.PhotosOrStore,
    masks: TrueMasks,
    json: JsonOut = None,
    preset: options.Preset = None,
    size: options.Size = None,
    range: options.Range = None,
    mean: options.Mean = None,
    std: options.Std = None,
    model: options.Model = None,
    weights: options.Weights = None,
    layer: options.Layer = None,
    facet: options.Facet = None,
    final_norm: options.FinalNorm = None,
    token_norm: options.TokenNorm = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    threshold: options.Threshold = None,
    foreground: options.Foreground = None,
    foreground_component: options.ForegroundComponent = None,
    scaling: options.Scaling = None,
    components: options.Components = None,
    space: lens.Space = None,
    mask_threshold: options.MaskThreshold = None,
    mask_side: options.MaskSide = None,
    opening: options.Opening = 0,
    closing: options.Closing = 0,
    prism: options.PrismFile = None,
    force: options.Force = False,
    upsample: lens.Upsample = "nearest",
    quiet: options.Quiet = False,
) -> None:
    """Measure the foreground against true masks: IoU, max F, MAE, max E, S and CorLoc, per photo and overall.

    Masks may have another size than their photos, but not another shape. Photos without a mask are named.
    """
    given = locals()  # the options, before anything else is
    from patchprism.cli import EXIT_SOME_PHOTOS_FAILED, many
    from patchprism.cli.console import print_table, say_notes, stdout
    from patchprism.jobs.evaluation import MEASURES, evaluate_photos
    from patchprism.jobs.render import Coloring
    from patchprism.prism.estimator import Prism

    settings = options.settings_of(given)
    coloring = Coloring(prism=Prism.load(prism) if prism else None, force=force)
    with many.running("local", None, quiet=quiet, keeps=False) as run:
        found = evaluate_photos(
            photos, masks, settings=settings, run=run, coloring=coloring, upsample=upsample, out=json
        )
    named = [(Path(each["photo"]).name, each) for each in found.photos] if not quiet else []
    named.append((f"all {len(found.photos):,}", found.overall))
    columns = [("photo", "left"), *((name.replace("_", " "), "right") for name in MEASURES)]
    rows = [(name, *(f"{each[measure]:.3f}" for measure in MEASURES)) for name, each in named]
    print_table("", columns, rows, console=stdout())
    say_notes(found.notes, quiet=quiet)
    many.warn_of_failures(found.failures)
    if found.failures:
        raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)
