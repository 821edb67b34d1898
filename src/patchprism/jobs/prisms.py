"""Photos or a store -> a prism."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchprism.features.store import StoredFeatures
from patchprism.jobs.coloring import NEW
from patchprism.jobs.fitting import fit
from patchprism.jobs.inputs import listed_input
from patchprism.jobs.network import kept_model
from patchprism.jobs.opened import open_tokens, resolved_for
from patchprism.jobs.run import Outcome, Run
from patchprism.jobs.teaching import check_given, teach
from patchprism.jobs.working import tidied, working
from patchprism.support.files import check_target
from patchprism.support.folders import WORK, LocalFolder, is_remote, local_path, split_address

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from patchprism.jobs.coloring import Coloring
    from patchprism.jobs.settings import Settings
    from patchprism.support.folders import Folder


def fit_prism(
    photos: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings,
    run: Run,
    coloring: Coloring = NEW,
) -> Outcome:
    """Photos or a store -> a prism in a file.

    Parameters
    ----------
    photos : sequence of path
        As in :func:`extract_features`, or one feature store.
    out : path
        The prism's file, or its address.
    coloring : Coloring
        The sample to fit on, which the prism keeps in ``origin["sample"]``; masks, or a head.
    """
    given, said = listed_input(photos)
    if isinstance(given, StoredFeatures):
        target = check_target(out, read=[given.path], make_folder=True)
    else:
        target = check_target(out, given, read=[settings.weights, settings.model], make_folder=True)
    work: Folder
    if is_remote(out):
        folder, name = split_address(out)
        work = folder.below(f".{name}{WORK}")
    else:
        beside = local_path(out)
        beside = beside.with_name(f".{beside.name}{WORK}")
        work = LocalFolder(beside, work=beside)
    settings = resolved_for(settings, given, run, coloring, kept=kept_model(work))
    prism = coloring.unfitted(settings)
    check_given(coloring.masks, given)
    with working(work, str(target)) as held, tidied(work, held):
        opened = open_tokens(given, settings, run, coloring, work=work, sample_only=True)
        teach(prism, opened, coloring.masks, run)
        fit(prism, opened, run)
        prism.save(target)
        held.end()
    return Outcome(
        n_photos=prism.n_photos_,
        n_patches=prism.n_patches_,
        failures=opened.failures,
        model=opened.record.title,
        weights_source=str(opened.weights),
        seconds=run.watch.seconds,
        prism=prism,
        hints=prism.hints(),
        notes=[*said, *opened.notes],
    )
