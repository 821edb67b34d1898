"""``patchprism render``: the main job."""

from __future__ import annotations

from patchprism.cli import lens, options


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
    masks: options.Masks = None,
    instances: options.Instances = False,
    outline: options.Outline = False,
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
    from patchprism.jobs.render import Coloring, render_photos
    from patchprism.jobs.run import Sample
    from patchprism.jobs.writers import check_folder
    from patchprism.lenses.looking import Lenses
    from patchprism.pictures.picture import PictureOptions
    from patchprism.prism.estimator import Prism

    check_folder(out)
    names, wanted = lens.lens_options(
        lenses, at, clusters, match_all, match_lines, upsample, match_photos, options.parse_layers(layer)
    )
    pictures = PictureOptions(
        overlay_alpha=overlay,
        arrays=arrays,
        format=format,
        upsample=upsample,
        background=background,
        basis=basis,
        pca="pca" in names,
        masks=(masks,) if masks else (),
        instances=instances,
        outline=outline,
    )
    settings = options.settings_of(given)
    many.warn_if_inside(out, photos)
    large = many.is_large(photos, out, engine, workers, asked=resume or sample is not None)
    coloring = Coloring(
        prism=Prism.load(prism) if prism else None,
        force=force,
        sample=Sample(sample, seed),
        fetch_from=tuple(fetch_from or ()),
    )
    written: list[str] = []
    with many.running(engine, workers, quiet=quiet, keeps=large) as run:
        outcome = render_photos(
            photos,
            out,
            settings=settings,
            pictures=pictures,
            run=run,
            coloring=coloring,
            looking=Lenses(names, wanted) if names != ["pca"] else None,
            in_memory=not large,
            wrote=written.append,
        )
    if quiet:
        for path in written:
            print(path)
    else:
        many.summarise(outcome, f"{len(written):,} files to {out}; look at {written[0]} first")
    many.finish(outcome, quiet=quiet)
