"""Photos or a store -> a prism."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchprism.features.store import StoredFeatures
from patchprism.jobs.inputs import listed_input
from patchprism.jobs.settings import Settings, Stopwatch
from patchprism.jobs.streaming.opened import Outcome, open_tokens, resolved_for, tidied, weights_of
from patchprism.jobs.work import fit, nobody, working
from patchprism.photos.sources import in_range, read_source
from patchprism.support.files import check_target
from patchprism.support.folders import WORK, LocalFolder, is_remote, local_path, split_address

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from patchprism.backbones import Backbone
    from patchprism.jobs.engines import Engine
    from patchprism.jobs.work import Reader, Tell
    from patchprism.support.folders import Folder


def fit_prism(
    photos: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings,
    engine: Engine,
    sample: int | None = None,
    seed: int = 0,
    backbone: Backbone | None = None,
    reader: Reader = read_source,
    tell: Tell = nobody,
) -> Outcome:
    """Photos or a store -> a prism in a file.

    Parameters
    ----------
    photos : sequence of path
        As in :func:`extract_features`, or one feature store.
    out : path
        The prism's file, or its address.
    settings : Settings
    engine : Engine
    sample : int, optional
        Fit on a sample of so many photos, drawn with ``seed``; the prism says so in ``origin["sample"]``.
    seed : int
    backbone, reader, tell
        As in :func:`extract_features`.

    Raises
    ------
    PatchPrismError
        One of its children.
    """
    given, said = listed_input(photos)
    watch = Stopwatch()
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
    settings = resolved_for(settings, given, None)
    reader = in_range(reader, settings.range)
    prism = settings.prism()
    with working(work, str(target)) as held, tidied(work, held):
        opened = open_tokens(given, settings, work, engine, sample, seed, backbone, reader, tell, watch)
        with watch("fit prism"):
            fit(prism, opened.source, engine, opened.origin, only=opened.only, tell=tell)
        prism.save(target)
        held.end()
    return Outcome(
        n_photos=prism.n_photos_,
        n_patches=prism.n_patches_,
        failures=opened.failures,
        model=str(opened.origin.get("model")),
        weights_source=str(weights_of(opened.origin)),
        seconds=watch.seconds,
        prism=prism,
        fitted_here=True,
        hints=prism.hints(),
        notes=[*said, *opened.notes],
    )
