"""``patchprism fit``: a prism, to colour with later."""

from __future__ import annotations

from typing import Annotated

import typer

from patchprism.cli import lens, options

PrismOut = Annotated[
    str,
    typer.Option("--out", "-o", metavar="FILE", help="The prism to write, e.g. dogs.prism."),
]


def fit(
    photos: options.PhotosOrStore,
    out: PrismOut,
    sample: options.Sample = None,
    seed: options.Seed = 0,
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
    engine: options.EngineName = "local",
    workers: options.Workers = None,
    quiet: options.Quiet = False,
) -> None:
    """Fit a prism once; [bold]render --prism FILE[/bold] then colours any photo as it would have been at the fit.

    Exact at any number of photos, in memory that does not grow with them. The same command takes up a run that
    was broken off.
    """
    given = locals()  # the options, before anything else is
    from patchprism.cli import many
    from patchprism.jobs.streaming import fit_prism

    settings = options.settings_of(given)
    with many.running(engine, workers, quiet=quiet) as (opened, tell):
        outcome = fit_prism(
            photos, out, settings=settings, engine=opened, sample=sample, seed=seed, tell=tell
        )
    if quiet:
        print(out)
    else:
        many.print_lines([*many.lines_of(outcome), *many.lines_of_fit(outcome), ("wrote", out)])
    many.finish(outcome, quiet=quiet)
