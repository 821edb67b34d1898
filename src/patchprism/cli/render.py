"""``patchprism render``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchprism.cli import EXIT_SOME_PHOTOS_FAILED, lens, options
from patchprism.cli.console import note, print_line, print_table, progress, say_notes, stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.jobs.view import Failure, View

SHOWN_ROWS = 20


def render(
    photos: options.PhotosOrStore,
    out: options.Out,
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
    lenses: lens.Lenses = None,
    at: lens.At = None,
    clusters: lens.Clusters = "auto",
    match_photos: lens.MatchPhotos = None,
    match_all: lens.MatchAll = False,
    match_lines: lens.MatchLines = 40,
    prism: options.PrismFile = None,
    force: options.Force = False,
    overlay: options.Overlay = None,
    upsample: lens.Upsample = "nearest",
    background: options.Background = "black",
    basis: options.Basis = "object",
    arrays: options.Arrays = False,
    format: options.Format = "png",
    sample: options.Sample = None,
    seed: options.Seed = 0,
    fetch_from: options.FetchFrom = None,
    engine: options.EngineName = "local",
    workers: options.Workers = None,
    resume: options.Resume = False,
    quiet: options.Quiet = False,
) -> None:
    """Colour photos: every part of the objects in them in one colour across all photos.

    Any number of photos: above 64 of them, memory no longer grows with their number, and a run that was broken
    off is taken up by the same command. Photos may be given as a feature store of [bold]patchprism
    features[/bold]; no network is needed then.

    Writes the figures fg_mask, results, results_raw and histogram, a picture of each photo, the fitted prism
    and report.json. With --lens, what other lenses show, instead or as well.
    """
    given = locals()  # the options, before anything else is
    from patchprism.cli import many
    from patchprism.jobs.writers import check_output_options
    from patchprism.prism.estimator import Prism

    check_output_options(out, overlay, format, upsample, background, basis)
    names, wanted = lens.lens_options(
        lenses, at, clusters, match_all, match_lines, upsample, match_photos, options.parse_layers(layer)
    )
    plain = names == ["pca"]
    settings = options.settings_of(given)
    many.warn_if_inside(out, photos)
    if many.is_large(photos, out, engine, workers, asked=resume or sample is not None, plain=plain):
        many.render(
            photos,
            out,
            settings=settings,
            engine=engine,
            workers=workers,
            prism=Prism.load(prism) if prism else None,
            force=force,
            overlay_alpha=overlay,
            arrays=arrays,
            format=format,
            upsample=upsample,
            background=background,
            basis=basis,
            sample=sample,
            seed=seed,
            fetch_from=fetch_from or (),
            quiet=quiet,
        )
        return
    from patchprism.jobs.inputs import list_photos
    from patchprism.lenses.write import file_names
    from patchprism.photos.paths import unique_stems
    from patchprism.pictures.outputs import output_names
    from patchprism.support.reading import reading
    from patchprism.support.written import Output

    with reading() as heard:
        listed = list_photos(photos)
    stems = unique_stems([path.name for path in listed])
    # Before anything is computed; once more when it is known which photos could be read.
    main = output_names(stems, overlay=overlay is not None, arrays=arrays, format=format, pca="pca" in names)
    more = file_names(names, wanted, stems, [str(path) for path in listed], arrays=arrays, format=format)
    Output(out).check([*main, *more], listed)
    with progress(quiet=quiet) as tell:
        view, found = lens.visualize_through(
            names,
            wanted,
            listed,
            **vars(settings),
            prism=Prism.load(prism) if prism else None,
            force=force,
            errors="report",
            fetch_from=fetch_from or (),
            progress=tell,
        )
        view.notes = heard.notes
        written = view.save(
            out,
            overlay_alpha=overlay,
            arrays=arrays,
            format=format,
            upsample=upsample,
            lenses=found,
            pca="pca" in names,
            background=background,
            basis=basis,
        )
    if quiet:
        for path in written:
            print(path)
    else:
        _summarise(view, written, out, first=1 if "pca" in names else 0)
    say_notes(view.all_notes(), quiet=quiet)
    warn_of_failures(view.failures)
    if view.failures:
        raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)


def _summarise(view: View, written: Sequence[Path] | Sequence[str], out: str, *, first: int = 1) -> None:
    console = stdout()
    rows = [
        (
            Path(name).name,
            f"{w} × {h}",
            f"{part.score.shape[0]} × {part.score.shape[1]}",
            f"{part.foreground.mean():.0%}",
        )
        for name, (h, w), part in zip(view.names, view.sizes, view.parts, strict=True)
    ]
    columns = [("photo", "left"), ("pixels", "right"), ("patches", "right"), ("foreground", "right")]
    print_table("", columns, rows[:SHOWN_ROWS], console=console)
    if len(rows) > SHOWN_ROWS:
        console.print(f"... and {len(rows) - SHOWN_ROWS} more, all in report.json")
    summary = view.prism.summary()
    how = {"otsu": "Otsu's", "labels": "fitted", "given": "as given"}.get(summary["threshold_from"], "")
    split = (
        "all patches kept"
        if view.prism.side_ == "none"
        else (f"foreground: score {view.prism.side_} {view.prism.threshold_:.3g} ({how})")
    )
    reason = f"; {summary['side_reason']}" if summary["side_from"] == "auto" else ""
    shares = summary["explained_variance_ratio"]["object"]
    chosen = " + ".join(f"{shares[abs(c) - 1]:.0%}" for c in view.prism.components)
    total = sum(view.seconds.values())
    slow = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in view.seconds.items() if seconds >= 0.05)
    for label, text in (
        ("model", f"{view.record.name}, weights from {view.weights}"),
        ("split", split + reason),
        ("colours", f"red + green + blue explain {chosen} of the foreground's variance"),
        ("time", f"{total:.1f} s ({slow})"),
        ("wrote", f"{len(written)} files to {out}; look at {written[first]} first"),
        *(("hint", hint) for hint in view.hints()),
    ):
        print_line(label, text)


def warn_of_failures(failures: Sequence[Failure]) -> None:
    """Name each photo that failed on standard error."""
    for failure in failures:
        note(f"failed: {failure.photo}: {failure.reason}")
    if failures:
        typer.echo(f"{len(failures)} of the photos failed; the others are done", err=True)
