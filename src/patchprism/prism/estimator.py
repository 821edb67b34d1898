"""Prism: splits patch tokens into foreground and colours; all that it learns is kept and can be saved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import FeaturesError, OptionError, PrismError
from patchprism.features.patch_features import PatchFeatures, Tokens, as_features, as_tokens, check_tokens
from patchprism.prism.colors import SCALINGS, SPACES, lay_out, scale_range, scale_sigmoid
from patchprism.prism.foreground import Voters, border_ratio, class_difference, unit
from patchprism.prism.moments import project
from patchprism.prism.morphology import clean
from patchprism.prism.passes import (
    ObjectHistogram,
    ObjectMoments,
    ObjectRange,
    PassT,
    SceneMoments,
    ScoreCounts,
    ScoreRange,
    otsu,
)
from patchprism.support import checks
from patchprism.support.checks import apply_checks, optional
from patchprism.support.words import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from patchprism.prism.moments import Moments, Principal
    from patchprism.prism.passes import Walk
    from patchprism.support.checks import Check

FOREGROUNDS = ("auto", "object", "pca", "above", "below", "none")

# Components kept of each PCA; three make a picture, the rest are for looking further.
KEPT_COMPONENTS = 8
# A coordinate along a component is rounded to a multiple of its standard deviation's power of two, times this:
# under a thousandth of a step of colour. It hides in which order a machine adds up, and lets the explorer's
# page hold the very numbers that colours are made of in two bytes and a bit instead of eight.
GRID = 2.0**-16
# The share of one side's patches that lie on borders, over the other side's: from here on up, the shares do not tell
# the sides apart. Grey and noise give 0.88 to 0.96 (ViT-S/14, block 8); of 18 jobs of one to four photos with an
# object, 17 give 0 to 0.79 (that network and efficientnet_lite2).
UNDECIDED_RATIO = 0.8
SIGNS = ("stable", "largest")
MASK_SIDES = ("above", "below", "none")
MAX_MORPHOLOGY = 16
# Options that may be changed after fitting, and what leaves the fitted foreground as it is.
MASK_OPTIONS = {"mask_threshold": None, "mask_side": None, "opening": 0, "closing": 0}

PRISM_CHECKS: dict[str, Check] = {
    "threshold": partial(checks.number, low=0, high=1, words=("auto", "otsu")),
    "foreground": partial(checks.choice, allowed=FOREGROUNDS),
    "foreground_component": partial(checks.integer, low=1, high=3),
    "scaling": partial(checks.choice, allowed=SCALINGS),
    "components": partial(checks.three_components, most=KEPT_COMPONENTS),
    "space": partial(checks.choice, allowed=SPACES),
    "signs": partial(checks.choice, allowed=SIGNS),
    "mask_threshold": optional(partial(checks.number, low=0, high=1)),
    "mask_side": optional(partial(checks.choice, allowed=MASK_SIDES)),
    "opening": partial(checks.integer, low=0, high=MAX_MORPHOLOGY),
    "closing": partial(checks.integer, low=0, high=MAX_MORPHOLOGY),
}


@dataclass(frozen=True)
class PhotoColors:
    """What a prism makes of one photo.

    Attributes
    ----------
    score : ndarray, shape (h, w), float32, in [0, 1]
    foreground : ndarray, shape (h, w), bool
    rgb : ndarray, shape (h, w, 3), float32, in [0, 1]
        Colours of the foreground; the background is 0.
    rgb_all : ndarray, shape (h, w, 3), float32, in [0, 1]
        The all-patch picture.
    """

    score: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    rgb: NDArray[np.float32]
    rgb_all: NDArray[np.float32]


class Prism:
    """Scene PCA, side, threshold, object PCA and colour ranges: fitted once, then the same for every photo.

    Parameters
    ----------
    threshold : float, "auto" or "otsu", default="auto"
        Between 0 and 1; patches whose score is on the foreground's side of it are foreground. ``"otsu"`` finds it
        from the scores of all photos. ``"auto"`` takes the threshold that agrees best with the photos' own labels
        where the foreground is ``"object"``, and Otsu's otherwise.
    foreground : {"auto", "object", "pca", "above", "below", "none"}, default="auto"
        How foreground is told from background. ``"object"``, which ``"auto"`` stands for, learns one direction from
        labels that each photo gives its own patches: objects are what differs from the patches along the photos'
        borders (:mod:`patchprism.prism.foreground`). ``"pca"`` takes a component of the scene PCA as the score, and the
        side of the threshold whose patches lie less on the photos' borders; ``"above"`` and ``"below"`` name that
        side. ``"none"`` keeps all patches.
    foreground_component : {1, 2, 3}, default=1
        The scene component that ``"pca"``, ``"above"`` and ``"below"`` use.
    scaling : {"minmax", "percentile", "sigmoid"}, default="minmax"
        How components become colours: by their extent over the fitted foreground, by its 1st and 99th
        percentile, or by the sigmoid of twice the whitened component.
    components : tuple of three int, default=(1, 2, 3)
        Which components become red, green and blue, counted from 1 up to 8; negative ones are turned around.
    space : {"rgb", "oklab"}, default="rgb"
        Components as red, green and blue, or as axes of OKLab, where equal steps look equal; see
        :func:`~patchprism.prism.oklab.fill_cube`.
    signs : {"stable", "largest"}, default="stable"
        How the sign of each component is fixed: its loading of largest magnitude is positive, and with ``"stable"``
        near ties are broken by something that small changes do not flip
        (:func:`~patchprism.prism.moments.fix_signs`).
    mask_threshold, mask_side : float and {"above", "below", "none"}, optional
        Show another foreground than the one that was fitted on. The fit stays as ``threshold`` and
        ``foreground`` make it, so no patch changes its colour: these say which patches have one.
    opening, closing : int, default=0
        Clean the shown foreground: drop specks, then fill holes, of up to so many patches
        (:func:`patchprism.prism.morphology.clean`).

    Attributes
    ----------
    scene_mean_, object_mean_ : ndarray, shape (D,), float64
    scene_components_, object_components_ : ndarray, shape (k, D), float64
    scene_variance_, object_variance_ : ndarray, shape (k,), float64
        Zero where a component is no more than rounding noise.
    scene_ratio_, object_ratio_ : ndarray, shape (k,), float64
        Share of the variance that each component explains.
    direction_ : ndarray, shape (D,), float64, or None
        The foreground direction; None where a scene component is the score.
    agreement_ : float
        Mean over the labelled photos of the intersection over union of their foreground with their labels; NaN
        without a direction.
    n_voters_ : int
        Photos that gave the direction; 0 without one.
    score_range_ : ndarray, shape (2,), float64
        What became score 0 and score 1.
    threshold_ : float
        In [0, 1]; NaN with ``foreground="none"``.
    side_ : {"above", "below", "none"}
    border_share_ : dict
        For each side, the share of its patches that lie on a photo's border.
    object_range_ : ndarray, shape (2, k), float64
        What becomes 0 and 1 of each object component (not used by ``"sigmoid"``).
    all_range_ : ndarray, shape (2, 3), float64
        The same for the three channels of the all-patch picture.
    score_histogram_ : ndarray, shape (256,), int64
        Counts of the fitted patches' scores in equal bins of [0, 1].
    n_photos_, n_patches_, n_foreground_ : int
    origin : dict
        Model, weights, framing and dtype of the features; set by who knows, kept in the file.

    Notes
    -----
    The method is that of Figure 1 in Oquab et al., "DINOv2: Learning Robust Visual Features without
    Supervision" (2023); scaling by sigmoid(2x) is from the DINOv3 notebook.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tokens = rng.normal(size=(2, 8, 8, 16)).astype(np.float32)
    >>> tokens[..., 0] += 5  # what ground and object have in common
    >>> tokens[:, 2:6, 2:6, 1] += 9
    >>> prism = Prism().fit(tokens)
    >>> int(prism.foreground_of(tokens[0]).sum())
    16
    >>> prism.transform(tokens)[0].shape
    (8, 8, 3)
    """

    def __init__(
        self,
        *,
        threshold: float | str = "auto",
        foreground: str = "auto",
        foreground_component: int = 1,
        scaling: str = "minmax",
        components: tuple[int, int, int] = (1, 2, 3),
        space: str = "rgb",
        signs: str = "stable",
        mask_threshold: float | None = None,
        mask_side: str | None = None,
        opening: int = 0,
        closing: int = 0,
    ) -> None:
        self.threshold = threshold
        self.foreground = foreground
        self.foreground_component = foreground_component
        self.scaling = scaling
        self.components = components
        self.space = space
        self.signs = signs
        self.mask_threshold = mask_threshold
        self.mask_side = mask_side
        self.opening = opening
        self.closing = closing
        self.origin: dict[str, Any] = {}
        # The file that the fit was read from: a job that reads it does not write it.
        self.loaded_from = ""
        # Of each labelled photo of the last fit, by its place, how far its foreground agrees with its labels.
        self.agreements: dict[int, float] = {}

    # ---------------------------------------------------------------- fitting

    def fit(self, features: PatchFeatures | Any) -> Self:
        """Learn from the patches of all photos together.

        Parameters
        ----------
        features : PatchFeatures or sequence of array-like, each (h, w, D)

        Raises
        ------
        OptionError
            If an option has a value that is not allowed.
        FeaturesError
            If a token is not finite; the photo is named.
        PrismError
            If no patch is left in the foreground.
        """
        photos = as_features(features)

        def walk(make: Callable[[], PassT]) -> PassT:
            made = make()
            for index, (name, tokens) in enumerate(zip(photos.names, photos, strict=True)):
                try:
                    made.update(tokens, index)
                except FeaturesError as error:
                    raise FeaturesError(f"{name}: {error}") from error
            return made

        return self.fit_by(walk, n_photos=len(photos))

    def fit_by(self, walk: Walk, *, n_photos: int) -> Self:
        """Learn by passes that somebody else walks: ``walk(make)`` folds all photos into ``make()``.

        Parameters
        ----------
        walk : callable
        n_photos : int
            How many photos there are, at most; from it follows which of them are labelled.
        """
        self.check_options()
        self.loaded_from = ""
        voters = Voters(n_photos) if self.foreground in ("auto", "object") else None
        scene = walk(partial(SceneMoments, voters))
        if scene.moments is None:
            raise FeaturesError("features need at least one photo, got none")
        self.n_photos_, self.n_patches_ = scene.n_photos, scene.moments.count
        self.scene_mean_ = scene.moments.mean
        self.scene_components_, self.scene_variance_, self.scene_ratio_ = _kept(scene.moments, self.signs)
        self.direction_ = None if scene.votes is None else scene.votes.direction()
        self.n_voters_ = 0 if self.direction_ is None or scene.votes is None else scene.votes.count
        labels = {} if self.direction_ is None or scene.votes is None else scene.votes.labels
        extent = walk(lambda: ScoreRange(self)).extent
        self.score_range_ = np.array([extent.low[0], extent.high[0]])
        self._fit_foreground(walk, labels)
        in_object = walk(lambda: ObjectMoments(self, labels))
        self.n_foreground_ = in_object.moments.count
        if not self.n_foreground_:
            raise PrismError(self._no_foreground())
        self.agreements = in_object.agreements
        self.agreement_ = float(np.mean(list(self.agreements.values()))) if self.agreements else float("nan")
        self.all_range_ = np.stack([in_object.extent.low, in_object.extent.high])
        self.object_mean_ = in_object.moments.mean
        self.object_components_, self.object_variance_, self.object_ratio_ = _kept(
            in_object.moments, self.signs
        )
        extent = walk(lambda: ObjectRange(self)).extent
        if self.scaling == "percentile":
            histogram = walk(lambda: ObjectHistogram(self, extent))
            self.object_range_ = np.stack([histogram.percentile(1), histogram.percentile(99)])
        else:
            self.object_range_ = np.stack([extent.low, extent.high])
        return self

    def _fit_foreground(self, walk: Walk, labels: Mapping[int, bytes]) -> None:
        given = None if isinstance(self.threshold, str) else float(self.threshold)
        counts = walk(lambda: ScoreCounts(self, given, labels))
        self.score_histogram_ = counts.histogram()
        threshold = given
        if threshold is None:
            by_labels = self.threshold == "auto" and self.direction_ is not None
            threshold = counts.curves.best() if by_labels else otsu(self.score_histogram_)
        sides = counts.sides(threshold)
        self.border_share_ = {side: sides.border_share(side) for side in ("above", "below")}
        if self.foreground == "none":
            self.threshold_, self.side_ = float("nan"), "none"
            return
        self.threshold_, self.side_ = threshold, self.foreground
        if self.direction_ is not None:
            self.side_ = "above"
        elif self.foreground in ("auto", "object", "pca"):
            above_less = self.border_share_["above"] <= self.border_share_["below"] and sides.above
            self.side_ = "above" if above_less or not sides.below else "below"

    def check_options(self) -> None:
        """Refuse an option whose value is not allowed, and keep the others as plain values; :meth:`fit` does it too.

        Raises
        ------
        OptionError
            If there is one.
        """
        apply_checks(self, PRISM_CHECKS)
        threshold, side = self.mask_threshold, self.mask_side
        if self.foreground == "none" and side in ("above", "below") and threshold is None:
            raise OptionError(f"mask_side {side!r} needs a mask_threshold with foreground='none'")
        if self.foreground == "none" and side is None and threshold is not None:
            raise OptionError("mask_threshold needs a mask_side with foreground='none'")

    def _no_foreground(self) -> str:
        if not self.scene_variance_[0]:
            return "all patches have the same features, so there is no foreground to find; foreground='none' keeps all"
        return (
            f"no patch's score is {self.side_} the threshold {self.threshold_:g}; "
            "choose another threshold, or foreground='none' to keep all"
        )

    # ---------------------------------------------------------------- using

    def transform(self, features: PatchFeatures | Any) -> list[NDArray[np.float32]]:
        """Colours of photos.

        Parameters
        ----------
        features : PatchFeatures or sequence of array-like, each (h, w, D)

        Returns
        -------
        list of ndarray, each (h, w, 3), float32, in [0, 1]
            Background is 0.

        Raises
        ------
        PrismError
            If the prism is not fitted, or fitted on another width.
        FeaturesError
            If a token is not finite; the photo is named.
        """
        photos = as_features(features)
        return [self.split(tokens, name=name).rgb for name, tokens in zip(photos.names, photos, strict=True)]

    def fit_transform(self, features: PatchFeatures | Any) -> list[NDArray[np.float32]]:
        """:meth:`fit`, then :meth:`transform` of the same features."""
        return self.fit(features).transform(features)

    def split(self, tokens: Tokens, *, name: str = "features") -> PhotoColors:
        """Score, foreground and both colourings of one photo's tokens, (h, w, D); raises as :meth:`transform`."""
        self.check_options()  # a user may have set one since the fit
        tokens = self._checked(tokens, name)
        scene = self.scene_components(tokens)
        score = self.score_of(tokens, scene=scene)
        foreground = self.shown_mask(score)
        rgb = np.zeros((*foreground.shape, 3), np.float32)
        rgb[foreground] = self.colors_of(self.object_components(tokens[foreground]))
        flat = self._chosen(self.scene_variance_, signed=False) == 0
        low, high = self.all_range_
        rgb_all = scale_range(self.all_patch_values(scene, foreground), low, np.where(flat, low, high))
        return PhotoColors(score, foreground, rgb, lay_out(rgb_all, self.space))

    def scene_components(self, tokens: Tokens) -> NDArray[np.float64]:
        """Coordinates along the scene PCA's components, (h, w, D) -> (h, w, k)."""
        rows = tokens.reshape(-1, tokens.shape[-1])
        values = project(rows, self.scene_mean_, self.scene_components_).reshape(*tokens.shape[:-1], -1)
        return on_grid(_finite(values), self.scene_variance_)

    def object_components(self, rows: Tokens) -> NDArray[np.float64]:
        """Coordinates along the object PCA's components, (n, D) -> (n, k)."""
        values = project(rows, self.object_mean_, self.object_components_)
        return on_grid(_finite(values), self.object_variance_)

    def score_values(
        self, tokens: Tokens, *, scene: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """What becomes the score, before it is scaled, (h, w); ``scene`` saves projecting the tokens again."""
        if self.direction_ is None:
            scene = self.scene_components(tokens) if scene is None else scene
            return scene[..., self.foreground_component - 1]
        rows = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
        values = self.along_direction(rows @ self.direction_, np.einsum("nd,nd->n", rows, rows))
        return values.reshape(tokens.shape[:-1])

    def along_direction(
        self, products: NDArray[np.float64], squares: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Coordinates of unit tokens along the direction, (n,), from the tokens' products with it and their squares."""
        assert self.direction_ is not None
        length = np.sqrt(squares)
        step = np.exp2(np.floor(np.log2(np.linalg.norm(self.direction_)))) * GRID
        values: NDArray[np.float64] = np.rint(products / np.where(length > 0, length, 1.0) / step) * step
        return values

    def score_of(self, tokens: Tokens, *, scene: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
        """Scores of one photo, (h, w) float32 in [0, 1]; ``scene`` saves projecting the tokens again."""
        return self.scaled_score(self.score_values(tokens, scene=scene))

    def scaled_score(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scores from :meth:`score_values`, float32 in [0, 1]."""
        low, high = self.score_range_
        flat = self.direction_ is None and not self.scene_variance_[self.foreground_component - 1]
        return scale_range(values, low, low if flat else high)

    def foreground_of(self, tokens: Tokens, *, scene: NDArray[np.float64] | None = None) -> NDArray[np.bool_]:
        """Foreground of one photo that is fitted on, (h, w) bool; ``scene`` saves projecting the tokens again."""
        return split_at(self.score_of(tokens, scene=scene), self.threshold_, self.side_)

    def shown_mask(self, score: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Foreground of one photo that is shown, (h, w) bool, from its scores."""
        threshold = self.threshold_ if self.mask_threshold is None else self.mask_threshold
        mask = split_at(score, threshold, self.mask_side or self.side_)
        return clean(mask, opening=self.opening, closing=self.closing)

    def all_patch_values(
        self, scene: NDArray[np.float64], foreground: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """The all-patch picture before scaling, (h, w, 3): scene components, and in the background the
        smallest of them in this photo.
        """
        values = self._chosen(scene)
        return np.where(foreground[..., np.newaxis], values, values.min())

    def colors_of(self, components: NDArray[np.float64]) -> NDArray[np.float32]:
        """Colours of coordinates along the object PCA's components, (n, k) -> (n, 3) in [0, 1]."""
        values, deviation = (
            self._chosen(components),
            np.sqrt(self._chosen(self.object_variance_, signed=False)),
        )
        if self.scaling == "sigmoid":
            return lay_out(scale_sigmoid(values, deviation), self.space)
        low, high = self._chosen(self.object_range_)
        # A turned component's range is turned with it; one without variance is flat whatever its rounding noise.
        low, high = np.minimum(low, high), np.maximum(low, high)
        return lay_out(scale_range(values, low, np.where(deviation > 0, high, low)), self.space)

    def _chosen(self, values: NDArray[np.float64], *, signed: bool = True) -> NDArray[np.float64]:
        """The three components that make colours, (..., k) -> (..., 3), turned around where asked."""
        chosen = values[..., [abs(c) - 1 for c in self.components]]
        return chosen * np.sign(self.components) if signed else chosen

    def _checked(self, tokens: Any, name: str) -> Tokens:
        if not hasattr(self, "object_range_"):
            raise PrismError("this prism is not fitted yet: call fit, or load one")
        width, array = len(self.scene_mean_), as_tokens(tokens, name)
        if array.ndim != 3 or array.shape[2] != width:
            raise PrismError(f"{name}: this prism is fitted on features of width {width}, got {array.shape}")
        check_tokens(array, name)
        return array

    # ---------------------------------------------------------------- telling

    def summary(self) -> dict[str, Any]:
        """What was learned, in plain numbers and words, for reports."""
        none = self.side_ == "none"
        shares = {side: round(share, 6) for side, share in self.border_share_.items()}
        return {
            "threshold": None if none else self.threshold_,
            "threshold_from": "none" if none else self._threshold_from(),
            "foreground": self.method_,
            "side": self.side_,
            "side_from": "given" if self.foreground in ("above", "below", "none") else "auto",
            "side_reason": self._side_reason(),
            "side_undecided": self.undecided_,
            "border_share": shares,
            "scaling": self.scaling,
            "components": list(self.components),
            "space": self.space,
            "explained_variance_ratio": {
                "scene": [float(v) for v in self.scene_ratio_],
                "object": [float(v) for v in self.object_ratio_],
            },
            "n_photos": self.n_photos_,
            "n_patches": self.n_patches_,
            "n_foreground": self.n_foreground_,
            "n_voters": self.n_voters_,
            "agreement": None if np.isnan(self.agreement_) else round(self.agreement_, 6),
        }

    @property
    def method_(self) -> str:
        """How the foreground was found: ``"object"``, ``"pca"`` (a scene component), or ``"none"``."""
        return "none" if self.side_ == "none" else "pca" if self.direction_ is None else "object"

    def _threshold_from(self) -> str:
        if not isinstance(self.threshold, str):
            return "given"
        return "labels" if self.threshold == "auto" and self.direction_ is not None else "otsu"

    @property
    def undecided_(self) -> bool:
        """Whether a side was chosen by the border shares though they are too close to tell."""
        chosen = self.direction_ is None and self.foreground in ("auto", "object", "pca")
        return chosen and not self._sides_differ()

    def doubts(self, tokens: Tokens, foreground: NDArray[np.bool_]) -> dict[str, float]:
        """What tells whether one photo's foreground can be believed.

        Parameters
        ----------
        tokens : ndarray, shape (h, w, D)
        foreground : ndarray, shape (h, w), bool

        Returns
        -------
        dict
            ``border_ratio``: the share of the border that is foreground over that of the photo, about 0 for an object
            inside of it. ``contrast``: length of the difference between the mean unit tokens of foreground and
            background, from 0 to 2. ``likeness``: mean cosine between all patches of the photo.
        """
        units = unit(tokens)
        difference = class_difference(units, foreground)
        mean = units.reshape(-1, units.shape[-1]).mean(axis=0, dtype=np.float64)
        return {
            "border_ratio": round(border_ratio(foreground), 4),
            "contrast": 0.0 if difference is None else round(float(np.linalg.norm(difference)), 4),
            "likeness": round(float(mean @ mean), 4),
        }

    def _sides_differ(self) -> bool:
        least, most = sorted(self.border_share_.values())
        return least < UNDECIDED_RATIO * most

    def hints(self) -> list[str]:
        """What a person should know of the side that was fitted before believing the colours, in whole sentences."""
        above, below = self.border_share_["above"], self.border_share_["below"]
        if self.undecided_:
            return [
                f"no object was found: {above:.0%} of the patches above the threshold lie on the photos' borders, and "
                f"{below:.0%} of those below, so the side of the object is undecided; look at the histogram, and try "
                "--foreground above, below or none"
            ]
        if (
            self.foreground not in ("above", "below")
            or self.mask_side is not None
            or not self._sides_differ()
        ):
            return []
        other = "below" if self.side_ == "above" else "above"
        mine, theirs = self.border_share_[self.side_], self.border_share_[other]
        if mine <= theirs:
            return []
        return [
            f"the object seems to lie {other} the threshold: {mine:.0%} of the patches {self.side_} it lie on the "
            f"photos' borders, and {theirs:.0%} of those {other}; try --foreground {other}"
        ]

    def _side_reason(self) -> str:
        if self.direction_ is not None:
            voters = counted(self.n_voters_, "photo")
            return (
                f"learned from labels of {voters}, which agree with the foreground to {self.agreement_:.0%}"
            )
        if self.foreground in ("above", "below", "none"):
            return "as asked" if self.side_ != "none" else "all patches kept, as asked"
        other = "below" if self.side_ == "above" else "above"
        mine, theirs = self.border_share_[self.side_], self.border_share_[other]
        undecided = "undecided: " if self.undecided_ else ""
        said = f"{mine:.0%} of the patches {self.side_} lie on the photos' borders, of those {other} {theirs:.0%}"
        return undecided + said

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the prism to a file; see :mod:`patchprism.prism.file` for the layout.

        Raises
        ------
        PrismError
            If the prism is not fitted.
        OutputError
            If the file cannot be written.
        """
        from patchprism.prism.file import save_prism

        save_prism(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prism:
        """Read a prism that :meth:`save` wrote.

        Raises
        ------
        PrismError
            If the file is missing, not a prism, damaged, or from a newer version.
        """
        from patchprism.prism.file import load_prism

        return load_prism(path)

    def __repr__(self) -> str:
        options = (
            f"threshold={self.threshold!r}, foreground={self.foreground!r}, "
            + (
                f"foreground_component={self.foreground_component}, "
                if self.foreground_component != 1
                else ""
            )
            + f"scaling={self.scaling!r}, "
            f"components={tuple(self.components)}"
            + (f", space={self.space!r}" if self.space != "rgb" else "")
        ) + "".join(
            f", {name}={getattr(self, name)!r}"
            for name, unset in MASK_OPTIONS.items()
            if getattr(self, name) != unset
        )
        fitted = f", fitted on {counted(self.n_photos_, 'photo')}" if hasattr(self, "object_range_") else ""
        if fitted and self.undecided_:
            fitted += f", side {self.side_} but undecided"
        return f"Prism({options}{fitted})"


def split_at(score: NDArray[np.float32], threshold: float, side: str) -> NDArray[np.bool_]:
    """Which scores lie above or below a threshold, itself left out; with ``"none"`` all."""
    if side == "none":
        return np.ones(score.shape, dtype=bool)
    edge = np.float32(threshold)
    return score > edge if side == "above" else score < edge


def grid_steps(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """What coordinates along components of such variances are multiples of, (k,); 0 for those without."""
    with np.errstate(divide="ignore"):
        return np.where(variance > 0, np.exp2(np.floor(np.log2(np.sqrt(variance)))) * GRID, 0.0)


def on_grid(values: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates (..., k) rounded to multiples of :func:`grid_steps`, as all colours and scores take them."""
    steps = grid_steps(variance)
    rounded: NDArray[np.float64] = np.rint(values / np.where(steps > 0, steps, 1.0)) * steps
    return rounded


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates as they are: tokens are checked, so what is not finite is due to a prism out of a file."""
    if not np.isfinite(values).all():
        raise PrismError("this prism cannot be used: its means or components are too large")
    return values


def _kept(
    moments: Moments, signs: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Components (k, D), variances (k,) and their shares (k,), k at least 3; noise has variance 0."""
    width = len(moments.mean)
    principal: Principal = moments.principal(min(KEPT_COMPONENTS, width), stable=signs == "stable")
    missing = max(KEPT_COMPONENTS - width, 0)
    components = np.pad(principal.components, ((0, missing), (0, 0)))
    variance = np.pad(principal.variance, (0, missing))
    variance[principal.rank :] = 0.0
    return components, variance, variance / (principal.total_variance or 1.0)
