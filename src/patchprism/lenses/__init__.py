"""Lenses: ways to look at patch features across many photos. Importing it loads neither torch nor scikit-learn.

``pca`` is the main job, written by :meth:`Visualization.save <patchprism.Visualization.save>`
itself. Each other lens is a module with one function, ``look(scene)``, that computes all it has to say; what
draws and writes comes afterwards, so that nothing is half-written when a lens refuses.
"""

from __future__ import annotations

import importlib
from time import perf_counter
from typing import TYPE_CHECKING

from patchprism.errors import OptionError
from patchprism.lenses.base import LensOptions, Scene
from patchprism.pictures.outputs import LensResult
from patchprism.support import checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.backbones import Backbone
    from patchprism.jobs.view import View

__all__ = ["LENSES", "LensOptions", "LensResult", "Scene", "check_lenses", "look_through"]

LENSES = ("pca", "score", "norm", "similarity", "matches", "clusters", "attention")


def check_lenses(
    names: Sequence[str], options: LensOptions | None = None, *, photos: int | None = None
) -> list[str]:
    """The lenses, each once, in the order given.

    Parameters
    ----------
    names : sequence of str
    options : LensOptions, optional
        Checked too.
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
    options.check()
    if "similarity" in names and not options.at:
        raise OptionError("the lens similarity needs a point: at=PHOTO:x,y")
    if options.at and not {"similarity", "attention"} & set(names):
        raise OptionError("at is for the lenses similarity and attention, and neither is asked for")
    if "matches" in names and photos is not None and photos < 2:
        raise OptionError(f"the lens matches needs at least two photos, got {photos}")
    return list(dict.fromkeys(names))


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
    from patchprism.jobs.view import View

    if not isinstance(view, View):
        checks.refuse("view", "a Visualization", view)
    options = LensOptions() if options is None else options
    names = check_lenses(names, options, photos=len(view))
    scene = Scene(view, options, backbone)
    results = []
    for name in names:
        if name == "pca":
            continue
        start = perf_counter()
        results.append(importlib.import_module(f"patchprism.lenses.{name}").look(scene))
        view.seconds[f"lens {name}"] = perf_counter() - start
    return results
