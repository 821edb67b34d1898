"""``patchprism render``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchprism.cli import EXIT_SOME_PHOTOS_FAILED, options
from patchprism.cli.console import print_table, progress, stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.visualization import Failure, Visualization

SHOWN_ROWS = 20


def render(
    photos: options.Photos,
    out: options.Out,
    preset: options.Preset = None,
    size: options.Size = None,
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
    scaling: options.Scaling = None,
    components: options.Components = None,
    mask_threshold: options.MaskThreshold = None,
    mask_side: options.MaskSide = None,
    opening: options.Opening = 0,
    closing: options.Closing = 0,
    prism: options.PrismFile = None,
    force: options.Force = False,
    overlay: options.Overlay = None,
    background: options.Background = "black",
    basis: options.Basis = "object",
    arrays: options.Arrays = False,
    format: options.Format = "png",
    quiet: options.Quiet = False,
) -> None:
    """Colour photos: every part of the objects in them in one colour across all photos.

    Writes the figures fg_mask, results, results_raw and histogram, a picture of each photo, the fitted prism
    and report.json.
    """
    from patchprism.pipeline import visualize
    from patchprism.prism import Prism
    from patchprism.visualization import check_output_options

    check_output_options(out, overlay, format, background, basis)
    with progress(quiet=quiet) as tell:
        view = visualize(
            photos,
            model=model,
            weights=weights,
            layer=layer,
            facet=facet,
            final_norm=final_norm,
            token_norm=token_norm,
            preset=preset,
            size=size,
            threshold=options.parse_threshold(threshold),
            foreground=foreground,
            scaling=scaling,
            components=options.parse_components(components),
            mask_threshold=mask_threshold,
            mask_side=mask_side,
            opening=opening,
            closing=closing,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            prism=Prism.load(prism) if prism else None,
            force=force,
            errors="report",
            exclude=out,
            progress=tell,
        )
        written = view.save(
            out, overlay_alpha=overlay, arrays=arrays, format=format, background=background, basis=basis
        )
    if quiet:
        for path in written:
            print(path)
    else:
        _summarise(view, written, out)
    warn_of_failures(view.failures)
    if view.failures:
        raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)


def _summarise(view: Visualization, written: Sequence[Path], out: Path) -> None:
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
        console.print(f"... and {len(rows) - SHOWN_ROWS} more, all in report.json", markup=False)
    summary = view.prism.summary()
    how = {"otsu": "Otsu's", "given": "as given"}.get(summary["threshold_from"], "")
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
        ("model", f"{view.record.name}, weights from {view.weights.source}"),
        ("split", split + reason),
        ("colours", f"red + green + blue explain {chosen} of the foreground's variance"),
        ("time", f"{total:.1f} s ({slow})"),
        ("wrote", f"{len(written)} files to {out}; look at {written[1]} first"),
        *(("hint", hint) for hint in view.hints()),
    ):
        console.print(f"{label:8}{text}", markup=False)


def warn_of_failures(failures: Sequence[Failure]) -> None:
    """Name each photo that failed on standard error."""
    for failure in failures:
        typer.echo(f"failed: {failure.photo}: {failure.reason}", err=True)
    if failures:
        typer.echo(f"{len(failures)} of the photos failed; the others are done", err=True)
