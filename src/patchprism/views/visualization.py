"""The result of `patchprism.visualize`, to look at, to work with and to save."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

from patchprism.errors import OptionError
from patchprism.features.patch_features import PatchFeatures
from patchprism.jobs.run import no_progress
from patchprism.jobs.settings import check_backbone
from patchprism.jobs.view import View
from patchprism.lenses.looking import look_through
from patchprism.lenses.options import LensOptions
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.figure_options import SCREEN_DPI
from patchprism.pictures.options import FIGURES, PictureOptions
from patchprism.pictures.outputs import LensResult, as_png
from patchprism.support import checks
from patchprism.views.extract import load_again

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure
    from numpy import bool_, float32, uint8
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.explorer import ExplorerPage
    from patchprism.features.patch_features import Tokens


class Visualization(View):
    """The coloured photos that :func:`patchprism.visualize` returns; notebooks display them.

    ``view[0]``, ``view[-1]`` and ``view["dog.jpg"]`` are the results of one photo. ``view[1:3]`` is a view of some of
    the photos, in the same colours. The lenses are :meth:`similarity`, :meth:`clusters`, :meth:`matches`,
    :meth:`attention` and :meth:`norms`. Their results contain arrays, are displayed by notebooks, and can be written
    with ``view.save(folder, lenses=[...])``. Lenses accept a photo by its index from 0 or by its name.

    Examples
    --------
    >>> import numpy as np, patchprism
    >>> tokens = np.random.default_rng(0).normal(size=(2, 8, 12, 64))
    >>> view = patchprism.visualize(features=tokens, foreground="none")
    >>> view[0]
    PhotoResult(photo-1, 8 x 12 patches, 100% foreground)
    >>> view[0].colors.shape
    (8, 12, 3)
    >>> view.clusters(3)
    LensResult(clusters, 2 photos, arrays labels)
    """

    @classmethod
    def of(cls, view: View) -> Visualization:
        """Convert a view to this class, which has more methods."""
        return cls(**vars(view))

    # ------------------------------------------------------------ single photos

    @overload
    def __getitem__(self, photo: int | str | os.PathLike[str]) -> PhotoResult: ...

    @overload
    def __getitem__(self, photo: slice) -> Visualization: ...

    def __getitem__(self, photo: int | str | os.PathLike[str] | slice) -> PhotoResult | Visualization:
        if isinstance(photo, slice):
            return self._some(range(len(self))[photo])
        return PhotoResult(self, self._index("photo", photo))

    def __iter__(self) -> Iterator[PhotoResult]:
        return (PhotoResult(self, index) for index in range(len(self)))

    def _index(self, name: str, photo: int | str | os.PathLike[str]) -> int:
        if not isinstance(photo, (str, os.PathLike)):
            return int(checks.integer(name, photo, low=-len(self), high=len(self) - 1)) % len(self)
        wanted = os.fspath(photo)
        for key in (str, lambda each: Path(each).name, lambda each: Path(each).stem):
            found = [i for i, each in enumerate(self.names) if key(each) == wanted]
            if len(found) == 1:
                return found[0]
            if found:
                raise OptionError(f"{name}: {len(found)} photos are called {wanted!r}; use an index: {found}")
        known = ", ".join(self.names[:5]) + (", ..." if len(self) > 5 else "")
        raise OptionError(f"{name}: no photo is called {checks.short_repr(wanted)}; choose from {known}")

    def _some(self, indices: Sequence[int]) -> Visualization:
        """A view of some photos, in the same colours."""
        if not indices:
            raise OptionError("photo: a slice must keep at least one photo")
        names = [self.names[i] for i in indices]
        features = PatchFeatures([self.features[i] for i in indices], names)
        features.origin, features.model = self.features.origin, self.features.model
        return replace(
            self,
            photos=self.photos.subset(indices),
            features=features,
            parts=[self.parts[i] for i in indices],
            crops=[self.crops[i] for i in indices],
            sizes=[self.sizes[i] for i in indices],
            plain=[name for name in names if name in self.plain],
            fitted_here=self.fitted_here and len(indices) == len(self),
            failures=[],
        )

    # ------------------------------------------------------------ lenses

    def similarity(
        self, photo: int | str | os.PathLike[str], x: float, y: float, *, upsample: str = "auto"
    ) -> LensResult:
        """Cosine similarity of every patch of all photos to the patch at a point.

        Parameters
        ----------
        photo : int, str or path
            The photo with the point: its index from 0, or its name.
        x, y : float
            The point in the photo's pixels, from its upper left corner.
        upsample : {"auto", "nearest", "bilinear", "guided"}
            How patches become pixels in the pictures of photos.

        Returns
        -------
        LensResult
            ``arrays[i]["similarity"]``, (1, h, w) float32 in [-1, 1], for photo i.

        Raises
        ------
        OptionError
            If there is no such photo, or the network did not see this point.

        Examples
        --------
        >>> import numpy as np, patchprism
        >>> tokens = np.random.default_rng(0).normal(size=(2, 8, 12, 64))
        >>> view = patchprism.visualize(features=tokens, foreground="none")
        >>> view.similarity(0, x=20, y=30).arrays[1]["similarity"].shape
        (1, 8, 12)
        """
        options = LensOptions(at=(self._at(photo, x, y),), upsample=upsample)
        return look_through(self, ["similarity"], options)[0]

    def clusters(self, k: int | str = "auto", *, seed: int = 0, upsample: str = "auto") -> LensResult:
        """k-means clusters of the patches of all photos.

        Parameters
        ----------
        k : int or "auto"
            Number of clusters, from 2 to 64. ``"auto"`` uses the number with the best silhouette.
        seed : int
            Random seed of k-means.
        upsample : {"auto", "nearest", "bilinear", "guided"}
            How patches become pixels in the pictures of photos.

        Returns
        -------
        LensResult
            ``arrays[i]["labels"]``, (h, w) int64, for photo i: numbers of clusters from 0, the largest cluster first.
            ``shared_arrays["centers"]``, (k, D) float32.

        Examples
        --------
        >>> import numpy as np, patchprism
        >>> tokens = np.random.default_rng(0).normal(size=(2, 8, 12, 64))
        >>> view = patchprism.visualize(features=tokens, foreground="none")
        >>> view.clusters(4).arrays[0]["labels"].shape
        (8, 12)
        """
        options = LensOptions(clusters=k, seed=seed, upsample=upsample)
        return look_through(self, ["clusters"], options)[0]

    def matches(
        self,
        a: int | str | os.PathLike[str] | None = None,
        b: int | str | os.PathLike[str] | None = None,
        *,
        foreground: bool = True,
        lines: int = 40,
    ) -> LensResult:
        """Patches of two photos that are each other's nearest neighbours.

        Parameters
        ----------
        a, b : int, str or path, optional
            The two photos: their indices from 0, or their names. By default all pairs of photos.
        foreground : bool
            Whether to match only patches of the foreground.
        lines : int
            Maximum number of matches to draw per pair, the most similar first.

        Returns
        -------
        LensResult
            ``shared_arrays["pair_1_2"]``, (n, 4) int64: row and column of the patch in ``a``, then in ``b``.
            ``shared_arrays["similarity_1_2"]``, (n,) float32: their cosines. ``tables["matches.csv"]``: the matches
            in pixels.

        Raises
        ------
        OptionError
            If there are no two such photos.

        Examples
        --------
        >>> import numpy as np, patchprism
        >>> tokens = np.random.default_rng(0).normal(size=(2, 8, 12, 64))
        >>> view = patchprism.visualize(features=tokens, foreground="none")
        >>> view.matches(0, 1).shared_arrays["pair_1_2"].shape[1]
        4
        """
        foreground = checks.flag("foreground", foreground)
        options = LensOptions(match_all=not foreground, match_lines=lines)
        if a is None and b is None:
            return look_through(self, ["matches"], options)[0]
        if a is None or b is None:
            raise OptionError("matches needs two photos, a and b, or neither for all pairs")
        pair = self._index("a", a), self._index("b", b)
        if pair[0] == pair[1]:
            raise OptionError("b must be a different photo than a", option="b")
        return look_through(self._some(pair), ["matches"], options)[0]

    def attention(
        self,
        photo: int | str | os.PathLike[str] | None = None,
        x: float | None = None,
        y: float | None = None,
        *,
        layer: int = -1,
        backbone: Backbone | None = None,
        upsample: str = "auto",
    ) -> LensResult:
        """Attention of the class token, or of the patch at a point: per head, and as rollout through all layers.

        Parameters
        ----------
        photo : int, str or path, optional
            Index from 0, or name; by default all photos.
        x, y : float, optional
            A point in the pixels of this photo; the result is the attention of the patch there.
        layer : int
            Block whose attention is shown, counted from 0, or from the end with negative numbers.
        backbone : Backbone, optional
            The backbone of the view. By default it is loaded again from the same weights.
        upsample : {"auto", "nearest", "bilinear", "guided"}
            How patches become pixels in the pictures of photos.

        Returns
        -------
        LensResult
            ``arrays[i]`` contains for photo i: ``cls_heads``, (heads, h, w) float32, ``cls_mean`` and
            ``cls_rollout``, (h, w), of the class token if there is one; and ``at1_heads``, ``at1_mean`` and
            ``at1_rollout`` of the point.

        Raises
        ------
        OptionError
            If there is no such photo or point, or the features do not come from a network that can be loaded.
        ModelError
            If the network does not provide its attention.

        Examples
        --------
        ``view.attention(0)`` shows the class token of the first photo, and ``view.attention(0, 120, 80)`` the patch
        at the point (120, 80).
        """
        check_backbone("backbone", backbone)
        if (x is None) != (y is None) or (photo is None and x is not None):
            raise OptionError("attention of a point needs photo, x and y")
        at = () if photo is None or x is None or y is None else (self._at(photo, x, y),)
        options = LensOptions(at=at, layer=layer, upsample=upsample)
        if backbone is None:
            backbone = load_again(self)
        if photo is None:
            return look_through(self, ["attention"], options, backbone=backbone)[0]
        index = self._index("photo", photo)
        result = look_through(self._some([index]), ["attention"], options, backbone=backbone)[0]
        # One entry per photo of this view, so that the result can be saved with the view.
        result.pictures = [result.pictures[0] if i == index else {} for i in range(len(self))]
        result.arrays = [result.arrays[0] if i == index else {} for i in range(len(self))]
        # The figure of the point comes first, because it was requested.
        result.figures = dict(sorted(result.figures.items(), key=lambda figure: figure[0] == "attention"))
        return result

    def norms(self, *, upsample: str = "auto") -> LensResult:
        """Lengths of the patch tokens, and the outliers among them.

        Parameters
        ----------
        upsample : {"auto", "nearest", "bilinear", "guided"}
            How patches become pixels in the pictures of photos.

        Returns
        -------
        LensResult
            ``arrays[i]["norm"]``, (h, w) float32, for photo i.

        Examples
        --------
        >>> import numpy as np, patchprism
        >>> tokens = np.random.default_rng(0).normal(size=(2, 8, 12, 64))
        >>> view = patchprism.visualize(features=tokens, foreground="none")
        >>> view.norms().arrays[0]["norm"].shape
        (8, 12)
        """
        return look_through(self, ["norm"], LensOptions(upsample=upsample))[0]

    def _at(self, photo: int | str | os.PathLike[str], x: float, y: float) -> str:
        index = self._index("photo", photo)
        return f"{self.names[index]}:{checks.number('x', x)!r},{checks.number('y', y)!r}"

    # ------------------------------------------------------------ pictures

    def figure(
        self,
        name: str = "overview",
        *,
        dpi: int | None = None,
        width: float | str | None = None,
        columns: int | None = None,
        labels: str | Sequence[str] = ("names",),
        arrange: str = "beside",
        panels: str = "whole",
        background: str = "black",
        outline: bool = False,
    ) -> Figure:
        """A figure of all photos, as a Matplotlib figure; in a PDF its text can be selected.

        Parameters
        ----------
        name : {"overview", "results", "results_raw", "fg_mask", "histogram"}
            ``"overview"`` shows the photo, score, colours and colours of all patches of every photo, 10 inches wide.
            The others are the figures that :meth:`save` writes.
        dpi, width, columns, labels, arrange, panels, background, outline
            As in :meth:`save`.

        Raises
        ------
        OptionError
            If an option has a value that is not allowed.

        Examples
        --------
        >>> import numpy as np, patchprism
        >>> tokens = np.random.default_rng(0).normal(size=(2, 8, 12, 64))
        >>> view = patchprism.visualize(features=tokens, foreground="none")
        >>> float(view.figure("results", width="3.25in", labels="none").get_size_inches()[0])
        3.25
        """
        from patchprism.views.figure import overview_sheet

        checks.choice("name", name, allowed=("overview", *FIGURES))
        options = PictureOptions(
            dpi=SCREEN_DPI if dpi is None and width is None and name == "overview" else dpi,
            width=10.0 if width is None and name == "overview" else width,
            columns=columns,
            labels=checks.texts("labels", labels),
            arrange=arrange,
            panels=panels,
            background=background,
            outline=outline,
        )
        if name == "overview":
            return Drawing(partial(overview_sheet, self)).figure(options)
        return self.figures(options)[name].figure(options)

    def explore(
        self,
        *,
        title: str | None = None,
        attention: bool = False,
        layers: int | Sequence[int] | None = None,
        backbone: Backbone | None = None,
    ) -> ExplorerPage:
        """Make the explorer's page for these photos; notebooks display it.

        Parameters
        ----------
        title : str, optional
            Title of the page.
        attention : bool
            Whether the page can show the attention of the class token. For this, the network runs on the photos again.
        layers : int or sequence of int, optional
            Layers for the slider of the page, besides the layer that is shown: blocks counted from 0, or from the end
            with negative numbers. The network runs on the photos once more, for all of them.
        backbone : Backbone, optional
            The backbone of the view, for ``attention`` and ``layers``. By default it is loaded again from the same
            weights.

        Returns
        -------
        ExplorerPage
            ``.save(path)`` writes it as one HTML file that needs neither a server nor a network.

        Raises
        ------
        OptionError
            With ``attention`` or ``layers``, if the features do not come from a network that can be loaded. With
            ``layers``, also if they come from a feature store, or are those of several layers.
        ModelError
            With ``attention``, if the network has no attention or no class token. With ``layers``, if it has no such
            layer.
        """
        from patchprism.explorer import ExplorerPage, build_message
        from patchprism.explorer.carried import carry_layers, check_carrying
        from patchprism.explorer.modes import carry_modes

        title = None if title is None else checks.text("title", title)
        attention = checks.flag("attention", attention)
        check_backbone("backbone", backbone)
        wanted: list[int] = []
        if layers is not None:
            check_carrying(self, "layers")
            found = checks.layers("layers", layers)
            several = found if isinstance(found, tuple) else (found,)
            wanted = [self.record.layer_index(layer) for layer in several]
        if backbone is not None and (backbone.record.name, backbone.weights.sha256) != (
            self.record.name,
            self.weights.sha256,
        ):
            raise OptionError(f"backbone must be the network of these photos, {self.record.name}")
        if backbone is None and (attention or wanted):
            backbone = load_again(self)
        message = build_message(self, title=title)
        carry_modes(message, self, backbone if attention else None)
        if wanted and backbone is not None:
            carry_layers(message, self, backbone, wanted, no_progress)
        return ExplorerPage(message)

    def _repr_png_(self) -> bytes:
        """PNG for notebooks: the figure ``results``."""
        return as_png(self.figures()["results"]())


@dataclass(frozen=True, eq=False, repr=False)
class PhotoResult:
    """The results of one photo of a view; notebooks display the photo beside its colours.

    Attributes
    ----------
    index : int
        Index of the photo in the view, from 0.
    """

    view: Visualization
    index: int

    @property
    def name(self) -> str:
        """Name of the photo."""
        return self.view.names[self.index]

    @property
    def size(self) -> tuple[int, int]:
        """The photo's (H, W) in pixels."""
        return self.view.sizes[self.index]

    @property
    def crop(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the area that the network saw, in the photo's pixels."""
        return self.view.crops[self.index]

    @property
    def features(self) -> Tokens:
        """Patch tokens, (h, w, D)."""
        return self.view.features[self.index]

    @property
    def score(self) -> NDArray[float32]:
        """Score, (h, w) float32 in [0, 1]."""
        return self.view.parts[self.index].score

    @property
    def foreground(self) -> NDArray[bool_]:
        """Foreground, (h, w) bool."""
        return self.view.parts[self.index].foreground

    @property
    def colors(self) -> NDArray[float32]:
        """Colours, (h, w, 3) float32 in [0, 1]; the background is 0."""
        return self.view.parts[self.index].rgb

    @property
    def colors_all(self) -> NDArray[float32]:
        """The all-patch picture, (h, w, 3) float32 in [0, 1]."""
        return self.view.parts[self.index].rgb_all

    def picture(
        self,
        *,
        overlay_alpha: float | None = None,
        upsample: str = "auto",
        background: str = "black",
        basis: str = "object",
    ) -> NDArray[uint8]:
        """The photo's picture at its own resolution, (H, W, 3) uint8; see :meth:`Visualization.picture`."""
        return self.view.picture(
            self.index, overlay_alpha=overlay_alpha, upsample=upsample, background=background, basis=basis
        )

    def __repr__(self) -> str:
        h, w = self.score.shape
        return f"PhotoResult({self.name}, {h} x {w} patches, {self.foreground.mean():.0%} foreground)"

    def _repr_png_(self) -> bytes:
        """PNG for notebooks: the photo beside its colours."""
        return self.view[self.index : self.index + 1]._repr_png_()
