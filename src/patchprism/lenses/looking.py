"""Apply lenses to a view in memory, or in a job (`patchprism render --lens`).

``pca`` is the main job, which needs no lens. Every other lens is a module with a
:class:`~patchprism.lenses.base.Lens`, which works on any source of tokens: it is fitted over all photos and then
looks at one photo at a time, in this process or in workers.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, cast

from patchprism.errors import OptionError
from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.engines.local import LocalEngine
from patchprism.jobs.figures import origin_of
from patchprism.jobs.fitting import walk_over
from patchprism.jobs.source import MemorySource
from patchprism.jobs.view import View
from patchprism.lenses.attention import check_backbone
from patchprism.lenses.options import LensOptions
from patchprism.lenses.points import find_photo, parse_point
from patchprism.lenses.scene import Scene
from patchprism.lenses.write import file_names
from patchprism.support import checks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from patchprism.backbones import Backbone
    from patchprism.jobs.report import Colored
    from patchprism.jobs.run import Run
    from patchprism.lenses.base import Lens
    from patchprism.pictures.options import PictureOptions
    from patchprism.pictures.outputs import LensResult
    from patchprism.prism.passes import Walk

LENSES = ("pca", "score", "norm", "similarity", "matches", "clusters", "attention")


def check_lenses(
    names: Sequence[str], options: LensOptions | None = None, *, photos: int | None = None
) -> list[str]:
    """Check names of lenses and their options; returns each name once, in the order given.

    Parameters
    ----------
    photos : int, optional
        The number of photos, if it is known.

    Raises
    ------
    OptionError
        If there is no such lens, an option has a value that is not allowed, or a required option is missing.
    """
    names = [checks.choice("lens", name, allowed=LENSES) for name in checks.texts("lens", names)]
    options = LensOptions() if options is None else options
    if not isinstance(options, LensOptions):
        checks.refuse("options", "LensOptions", options)
    if "similarity" in names and not options.at:
        raise OptionError("the lens similarity needs a point: at=PHOTO:x,y")
    if options.at and not {"similarity", "attention"} & set(names):
        raise OptionError("at is only for the lenses similarity and attention; ask for one of them")
    if options.match_photos and "matches" not in names:
        raise OptionError("match_photos is only for the lens matches; ask for it", option="match_photos")
    if "matches" in names and photos is not None and photos < 2:
        raise OptionError(f"the lens matches needs at least two photos, got {photos}")
    return list(dict.fromkeys(names))


def fit_lenses(names: Sequence[str], scene: Scene, walk: Walk) -> list[Lens]:
    """Lenses that are ready to look at the photos of a scene.

    Parameters
    ----------
    names : sequence of str
        From ``LENSES``; ``"pca"`` gives none.
    walk : Walk
        From :func:`~patchprism.jobs.fitting.walk_over`, over all photos of the scene's source.

    Raises
    ------
    OptionError
        If a lens, an option or a point is not allowed.
    ModelError
        If the network cannot give its attention.
    """
    names = check_lenses(names, scene.options, photos=len(scene))
    return [lens_class(name)(scene).fit(walk) for name in names if name != "pca"]


def lens_class(name: str) -> type[Lens]:
    """A lens by its name."""
    module = importlib.import_module(f"patchprism.lenses.{name}")
    return cast("type[Lens]", getattr(module, name.capitalize()))


def look_through(
    view: View,
    names: Sequence[str],
    options: LensOptions | None = None,
    *,
    backbone: Backbone | None = None,
) -> list[LensResult]:
    """Look at photos with lenses. The time is added to ``view.seconds``.

    Parameters
    ----------
    names : sequence of str
        From ``LENSES``; ``"pca"`` is the view itself and gives no result.
    backbone : Backbone, optional
        The backbone that the view was made with; only ``"attention"`` needs it.

    Returns
    -------
    list of LensResult
        Can be passed to :meth:`Visualization.save <patchprism.Visualization.save>`.

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
    if not isinstance(view, View):
        checks.refuse("view", "a Visualization", view)
    scene = scene_of(view, LensOptions() if options is None else options)
    if backbone is not None:
        scene.__dict__["backbone"] = backbone  # fills the cached property, so that nothing is loaded
    walk = walk_over(scene.source, LocalEngine())
    results = []
    for name in check_lenses(names, scene.options, photos=len(view)):
        if name == "pca":
            continue
        start = perf_counter()
        result = _result(lens_class(name)(scene).fit(walk))
        result.origin = origin_of(view._colored().opened, len(view), view.features.n_patches)
        results.append(result)
        view.seconds[f"lens {name}"] = perf_counter() - start
    return results


def scene_of(view: View, options: LensOptions) -> Scene:
    """The scene of a view in memory, for lenses."""
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
    """The result of a lens, with the pictures and arrays of each photo."""
    looks = [
        lens.look(row, tokens, lens.scene.part(index, row, tokens), index)
        for index, row, tokens in lens.scene.read()
    ]
    result = lens.result([look.entry for look in looks])
    if any(look.pictures or look.arrays for look in looks):
        result.pictures = [look.pictures for look in looks]
        result.arrays = [look.arrays for look in looks]
    return result


@dataclass
class Lenses:
    """The requested lenses of a job; see :class:`~patchprism.jobs.lens.Looking`.

    Attributes
    ----------
    names : sequence of str
        From ``LENSES``, checked.
    """

    names: Sequence[str]
    options: LensOptions
    scene: Scene | None = field(default=None, init=False)

    @property
    def needs_backbone(self) -> bool:
        """Whether one of them runs the network again."""
        return "attention" in self.names

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a network that cannot give its attention, before any photo is read."""
        check_backbone(backbone, has_points=bool(self.options.at), layer=self.options.layer)

    def files(self, stems: Sequence[str], photos: Sequence[str], pictures: PictureOptions) -> Iterator[str]:
        """Names of the files that may be written.

        Raises
        ------
        OptionError
            If a point is in no photo, or there are too few photos.
        """
        if "matches" in self.names and len(photos) < 2:
            raise OptionError(f"the lens matches needs at least two photos, got {len(photos)}")
        for text in self.options.at:
            find_photo(parse_point(text)[0], photos)
        return file_names(self.names, self.options, stems, photos, pictures)

    def fit(self, colored: Colored, run: Run) -> list[Lens]:
        """The lenses, fitted to the photos of a job."""
        opened, options = colored.opened, self.options
        if isinstance(layer := opened.settings.get("layer"), int):
            options = replace(options, layer=layer)  # a loaded prism sets the layer that it was fitted on
        self.scene = Scene(
            source=opened.source,
            prism=colored.prism,
            framing=opened.framing,
            record=opened.record,
            options=options,
            load=opened.load,
            parts=colored.parts,
        )
        return fit_lenses(self.names, self.scene, walk_over(opened.source, run.engine, tell=run.tell))

    def lost(self) -> Iterable[tuple[str, str]]:
        """Return the photos that could not be read again, with the reasons, and clear the list."""
        if self.scene is None:
            return []
        found = list(self.scene.lost.items())
        self.scene.lost.clear()
        return found
