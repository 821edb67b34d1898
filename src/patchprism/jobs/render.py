"""Photos or a feature store -> pictures."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism.errors import PatchPrismError
from patchprism.features.extraction import photo_names
from patchprism.features.store import StoredFeatures
from patchprism.jobs.coloring import NEW, Coloring
from patchprism.jobs.figures import kept_labels
from patchprism.jobs.fitting import fit, fit_or_resume
from patchprism.jobs.inputs import listed_input
from patchprism.jobs.network import kept_model, load_network
from patchprism.jobs.opened import open_tokens, resolved_for
from patchprism.jobs.pictures import Pictures
from patchprism.jobs.report import Colored
from patchprism.jobs.source import rows_of
from patchprism.jobs.teaching import check_given, teach
from patchprism.jobs.working import tidied, working
from patchprism.photos.paths import unique_stems
from patchprism.support.files import refuse_what_is_read
from patchprism.support.folders import WORK, Folder, LocalFolder, is_remote, local_path
from patchprism.support.written import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.jobs.lens import Looking
    from patchprism.jobs.run import Outcome, Run
    from patchprism.jobs.settings import Settings
    from patchprism.pictures.options import PictureOptions


def color(
    given: StoredFeatures | list[Any],
    settings: Settings,
    run: Run,
    coloring: Coloring,
    *,
    work: Folder | None = None,
    strict: bool = False,
) -> Colored:
    """The tokens of the input, and the prism that colours them.

    Parameters
    ----------
    given : StoredFeatures or list
        As :func:`~patchprism.jobs.inputs.open_input` gives it.
    settings : Settings
        Resolved.
    work : Folder, optional
        Where tokens and the prism are kept for a run that is interrupted; in memory by default.
    strict : bool
        Whether the first photo that cannot be read raises an error.
    """
    # Wrong input is refused before the network runs.
    prism = coloring.unfitted(settings)
    check_given(coloring.masks, given)
    opened = open_tokens(
        given,
        settings,
        run,
        coloring,
        work=work,
        strict=strict,
    )
    opened.settings |= coloring.report_entries()
    if coloring.prism is not None:
        return Colored(opened=opened, prism=prism, fitted_here=False)
    teach(prism, opened, coloring.masks, run)
    fitted = fit(prism, opened, run) if work is None else fit_or_resume(prism, opened, run, work)
    return Colored(opened=opened, prism=fitted, fitted_here=True)


def render_photos(
    photos: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings,
    pictures: PictureOptions,
    run: Run,
    coloring: Coloring = NEW,
    looking: Looking | None = None,
    in_memory: bool = False,
) -> Outcome:
    """Photos or a store -> the files that :meth:`Visualization.save` writes.

    Parameters
    ----------
    photos : sequence of path
        Files, folders, patterns and addresses, or one feature store.
    out : path
        A folder or an address.
    looking : Looking, optional
        Lenses that look at the photos as well.
    in_memory : bool
        Hold all tokens in memory rather than in a work folder: faster for a few photos, but an interrupted run
        cannot be resumed. The files are the same.
    """
    given, said = listed_input(photos)
    output = Output(out, prism=coloring.prism.loaded_from if coloring.prism else "")
    work = output.folder.below(WORK)
    settings = resolved_for(settings, given, run, coloring, kept="" if in_memory else kept_model(work))
    if isinstance(given, StoredFeatures):
        refuse_what_is_read(out, [given.path])
    folder = output.folder

    def finish(colored: Colored) -> Outcome:
        colored.opened.notes = [*said, *colored.opened.notes]
        chosen = kept_labels(pictures, given_names, (row.name for row in rows_of(colored.opened.source)))
        job = Pictures(colored, output, chosen, run, work=None if in_memory else work, looking=looking)
        written = [os.path.join(folder.name, name) for name in job.write()]
        return replace(job.outcome(), written=written)

    # No photo of a store can fail, so the names of its photos need not be held.
    given_names = [] if isinstance(given, StoredFeatures) else photo_names(given)
    pictures.check_labels(len(given))
    if not isinstance(given, StoredFeatures):
        # Checked again once it is known which photos can be read, because only these get files.
        stems = unique_stems([Path(name).name for name in given_names])
        more = looking.files(stems, given_names, pictures) if looking is not None else ()
        output.check([*pictures.names(stems), *more], given)
        if looking is not None and looking.needs_backbone:
            backbone = run.backbone or load_network(settings, run.tell)
            looking.check_backbone(backbone)
            if run.engine.local:
                run = replace(run, backbone=backbone)
    if in_memory:
        return finish(color(given, settings, run, coloring))
    before = not is_remote(out) and local_path(out).exists()
    try:
        with working(work, folder.name) as held, tidied(work, held):
            outcome = finish(color(given, settings, run, coloring, work=work))
            held.end()
    except PatchPrismError:
        if not before and isinstance(folder, LocalFolder) and folder.path.is_dir():
            with suppress(OSError):  # not empty
                folder.path.rmdir()
        raise
    return outcome
