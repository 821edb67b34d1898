"""``patchprism render``: colour photos, the main command."""

from __future__ import annotations

from dataclasses import replace

from patchprism.cli import lens, many, options
from patchprism.cli.options import ColoringOptions, Running
from patchprism.cli.takes import takes, without
from patchprism.jobs.settings import Settings
from patchprism.lenses.options import LensOptions
from patchprism.pictures.options import PictureOptions


@takes(
    pictures=without(PictureOptions, "pca"),
    settings=Settings,
    coloring=ColoringOptions,
    looking=without(LensOptions, "upsample", "layer", "seed"),
    running=Running,
)
def render(
    photos: options.PhotosOrStore,
    pictures: PictureOptions,
    settings: Settings,
    coloring: ColoringOptions,
    looking: LensOptions,
    running: Running,
    out: options.Out = options.OUT,
    lenses: lens.Lenses = None,
) -> None:
    """Colour photos: the same parts of objects get the same colours in all photos.

    Writes a picture of each photo, figures of all photos (fg_mask, results, results_raw and histogram), the fitted
    prism and report.json. With --lens, it writes the pictures of the given lenses instead.

    Memory does not grow with the number of photos. To resume an interrupted run, repeat the command. Instead of
    photos, you can give a feature store from `patchprism features`. The model then does not run again.
    """
    from patchprism.jobs.render import render_photos
    from patchprism.jobs.writers import check_folder
    from patchprism.lenses.looking import Lenses

    check_folder(out)
    names, looking = lens.lens_options(lenses, looking, pictures, settings)
    pictures = replace(pictures, pca="pca" in names)
    many.warn_if_inside(out, photos)
    asked = running.resume or coloring.sample is not None
    large = many.is_large(photos, out, running.engine, running.workers, asked=asked)
    chosen = coloring.coloring()
    with many.running(running.engine, running.workers, quiet=running.quiet, keeps=large) as run:
        outcome = render_photos(
            photos,
            out,
            settings=settings,
            pictures=pictures,
            run=run,
            coloring=chosen,
            looking=Lenses(names, looking) if names != ["pca"] else None,
            in_memory=not large,
        )
    written = outcome.written
    if running.quiet:
        for path in written:
            print(path)
    else:
        many.summarise(
            outcome, f"{len(written):,} files to {out}; look at {written[1 if pictures.pca else 0]} first"
        )
    many.finish(outcome, quiet=running.quiet)
