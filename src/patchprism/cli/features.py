"""``patchprism features``: the network's features of photos, for other programs and for later."""

from __future__ import annotations

from typing import Annotated

import typer

from patchprism.cli import options

StoreOut = Annotated[
    str,
    typer.Option("--out", "-o", metavar="STORE", help="The feature store to write, e.g. feats.zarr."),
]
Flat = Annotated[
    str | None,
    typer.Option(
        "--flat",
        metavar="FILE",
        help="Also write a Parquet table: photo, row, column, vector. Needs the extra 'tables'.",
    ),
]
TokensDtype = Annotated[
    str,
    typer.Option(
        "--tokens", metavar="float16|float32", help="What tokens are stored in; float16 halves the store."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a store of other photos or settings.")]


def features(
    photos: options.Photos,
    out: StoreOut,
    flat: Flat = None,
    tokens: TokensDtype = "float16",
    overwrite: Overwrite = False,
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
    engine: options.EngineName = "local",
    workers: options.Workers = None,
    quiet: options.Quiet = False,
) -> None:
    """Write the patch features of photos into a store (Zarr v3), which render and fit take in place of photos.

    The same command takes up a run that was broken off; the store is one only when it is whole.
    """
    given = locals()  # the options, before anything else is
    from patchprism.cli import many
    from patchprism.features.store import StoredFeatures
    from patchprism.jobs.stores import extract_features, write_table

    address = out
    settings = options.settings_of(given)
    if flat is not None:  # better known now than hours later
        from patchprism.support.files import check_target
        from patchprism.support.folders import is_remote, local_path

        check_target(flat, read=[out, weights, model])
        if is_remote(flat) or local_path(flat).exists():
            from patchprism.jobs.inputs import open_input

            listed = open_input(photos)
            check_target(flat, listed if isinstance(listed, list) else [])
    many.warn_if_inside(out, photos)
    with many.running(engine, workers, quiet=quiet) as run:
        outcome = extract_features(
            photos, address, settings=settings, run=run, tokens=tokens, overwrite=overwrite
        )
        if flat is not None:
            write_table(StoredFeatures(address), flat, tell=run.tell)
    written = [address, *([flat] if flat else [])]
    if quiet:
        for path in written:
            print(path)
    else:
        there = " (it was there already, whole)" if outcome.already else ""
        many.print_lines([*many.lines_of(outcome), ("wrote", " and ".join(written) + there)])
    many.finish(outcome, quiet=quiet)
