"""Lenses: ways to look at patch features across many photos. Importing it loads neither torch nor scikit-learn.

``pca`` is the main job, written by :meth:`Visualization.save <patchprism.Visualization.save>`
itself. Each other lens is a module with a :class:`~patchprism.lenses.base.Lens`, which runs on any source of tokens:
it is fitted over all photos, then looks at them one at a time, wherever they are drawn.
"""

from __future__ import annotations

import importlib
from time import perf_counter
from typing import TYPE_CHECKING, cast

from patchprism.errors import OptionError
from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.source import MemorySource
from patchprism.lenses.options import LensOptions
from patchprism.lenses.scene import Scene
from patchprism.pictures.outputs import LensResult, PhotoLook
from patchprism.support import checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.backbones import Backbone
    from patchprism.jobs.view import View
    from patchprism.lenses.base import Lens
    from patchprism.prism.passes import Walk

__all__ = [
    "LENSES",
    "LensOptions",
    "LensResult",
    "PhotoLook",
    "Scene",
    "check_lenses",
    "fit_lenses",
    "look_through",
    "scene_of",
]

LENSES = ("pca", "score", "norm", "similarity", "matches", "clusters", "attention")


def check_lenses(
    names: Sequence[str], options: LensOptions | None = None, *, photos: int | None = None
) -> list[str]:
    """The lenses, each once, in the order given.

    Parameters
    ----------
    names : sequence of str
    options : LensOptions, optional
    photos : int, optional
        How many photos there are, where that is known.

    Raises
    ------
    OptionError
        If there is no such lens, or an option has a value that is not allowed, or a lens lacks one.
    """
    names = [checks.choice("lens", name, allowed=LENSES) for name in checks.texts("lens", names)]
    options = LensOptions() if options is None else options
    if not isinstance(options, LensOptions):
        checks.refuse("options", "LensOptions", options)
    if "similarity" in names and not options.at:
        raise OptionError("the lens similarity needs a point: at=PHOTO:x,y")
    if options.at and not {"similarity", "attention"} & set(names):
        raise OptionError("at is for the lenses similarity and attention, and neither is asked for")
    if options.match_photos and "matches" not in names:
        raise OptionError(
            "match_photos is for the lens matches, which is not asked for", option="match_photos"
        )
    if "matches" in names and photos is not None and photos < 2:
        raise OptionError(f"the lens matches needs at least two photos, got {photos}")
    return list(dict.fromkeys(names))


def fit_lenses(names: Sequence[str], scene: Scene, walk: Walk) -> list[Lens]:
    """Lenses that are ready to look at the photos of a scene.

    Parameters
    ----------
    names : sequence of str
        From ``LENSES``; ``"pca"`` gives none.
    scene : Scene
    walk : Walk
        Over all photos of its source, as :func:`~patchprism.jobs.fitting.walk_over` gives one.

    Raises
    ------
    OptionError
        If a lens, an option or a point is not allowed.
    ModelError
        If the network cannot give its attention.
    """
    names = check_lenses(names, scene.options, photos=len(scene))
    return [_lens(name)(scene).fit(walk) for name in names if name != "pca"]


def _lens(name: str) -> type[Lens]:
    module = importlib.import_module(f"patchprism.lenses.{name}")
    return cast("type[Lens]", getattr(module, name.capitalize()))


def look_through(
    view: View,
    names: Sequence[str],
    options: LensOptions | None = None,
    *,
    backbone: Backbone | None = None,
) -> list[LensResult]:
    """What lenses find in some photos. Time spent is added to ``view.seconds``.

    Parameters
    ----------
    view : View
    names : sequence of str
        From ``LENSES``; ``"pca"`` is the view itself and gives no result of its own.
    options : LensOptions, optional
    backbone : Backbone, optional
        The one that the view was made with; only ``"attention"`` needs it.

    Returns
    -------
    list of LensResult
        For :meth:`Visualization.save <patchprism.Visualization.save>`.

    Raises
    ------
    OptionError
        If a lens, an option or a point is not allowed.
    ModelError
        If the network cannot give its attention.

    Examples
    --------
    >>> import numpy as np, patchprism
    >>> photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    >>> view = patchprism.visualize([photo], model="efficientnet_lite2", size=64)
    >>> found = look_through(view, ["similarity"], LensOptions(at=("1:40,30",)))
    >>> found[0].arrays[0]["similarity"].shape
    (1, 4, 6)
    """
    from patchprism.jobs.engines.local import LocalEngine
    from patchprism.jobs.fitting import walk_over
    from patchprism.jobs.view import View

    if not isinstance(view, View):
        checks.refuse("view", "a Visualization", view)
    scene = scene_of(view, LensOptions() if options is None else options)
    if backbone is not None:
        scene.__dict__["backbone"] = backbone  # not to be loaded, and not pickled
    walk = walk_over(scene.source, LocalEngine())
    results = []
    for name in check_lenses(names, scene.options, photos=len(view)):
        if name == "pca":
            continue
        start = perf_counter()
        results.append(_result(_lens(name)(scene).fit(walk)))
        view.seconds[f"lens {name}"] = perf_counter() - start
    return results


def scene_of(view: View, options: LensOptions) -> Scene:
    """What lenses see of a view in memory."""
    seen = zip(view.names, view.features.grids, view.sizes, view.crops, strict=True)
    rows = [PhotoRow(name, grid, size, crop) for name, grid, size, crop in seen]
    return Scene(
        source=MemorySource(view.photos, rows, view.features),
        prism=view.prism,
        framing=view.framing,
        record=view.record,
        options=options,
        parts=view.parts,
    )


def _result(lens: Lens) -> LensResult:
    """What a lens finds, with the pictures and arrays of each photo."""
    looks = [
        lens.look(row, tokens, lens.scene.part(index, row, tokens), index)
        for index, row, tokens in lens.scene.read()
    ]
    result = lens.result([look.entry for look in looks])
    if any(look.pictures or look.arrays for look in looks):
        result.pictures = [look.pictures for look in looks]
        result.arrays = [look.arrays for look in looks]
    return result
