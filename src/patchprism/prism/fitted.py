"""Use a fitted prism: score, foreground and colours of photos, and a summary of the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import PrismError
from patchprism.features.patch_features import as_tokens, check_tokens
from patchprism.prism.axes import Axes, Scorer, all_patch_values, chosen, split_at
from patchprism.prism.colors import PhotoColors, lay_out, scale_range, scale_sigmoid
from patchprism.prism.foreground import agreement, border_ratio, class_difference, label_units, unit
from patchprism.prism.morphology import clean
from patchprism.prism.options import PrismOptions
from patchprism.support.words import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.prism.head import Head

    Float64 = NDArray[np.float64]

# The smaller of the border shares of both sides, divided by the larger one. From this ratio on, the shares do not
# distinguish the sides. Grey and noise give 0.88 to 0.96 (ViT-S/14, block 8). Of 18 jobs of one to four photos with an
# object, 17 give 0 to 0.79 (that network and efficientnet_lite2).
UNDECIDED_RATIO = 0.8


class FittedPrism(PrismOptions):
    """The options and learned values of a prism, described at :class:`~patchprism.Prism`, which adds fit and save."""

    scene_mean_: Float64
    scene_components_: Float64
    scene_variance_: Float64
    scene_ratio_: Float64
    direction_: Float64 | None
    head_: Head | None
    agreement_: float
    n_voters_: int
    score_range_: Float64
    threshold_: float
    side_: str
    border_share_: dict[str, float]
    score_histogram_: NDArray[np.int64]
    object_mean_: Float64
    object_components_: Float64
    object_variance_: Float64
    object_ratio_: Float64
    object_range_: Float64
    all_range_: Float64
    n_photos_: int
    n_patches_: int
    n_foreground_: int
    masks: dict[str, bytes]

    # ---------------------------------------------------------------- using

    @property
    def is_fitted(self) -> bool:
        """Whether this prism is fitted."""
        return hasattr(self, "object_range_")

    @property
    def scorer(self) -> Scorer:
        """The axis of the score, and the scores that were fitted as foreground."""
        return Scorer(
            scene=Axes(self.scene_mean_, self.scene_components_, self.scene_variance_, self.scene_ratio_),
            component=self.foreground_component,
            direction=self.direction_,
            extent=(self.score_range_[0], self.score_range_[1]),
            threshold=self.threshold_,
            side=self.side_,
            head=self.head_,
            given=self.masks if self.head_ is not None else {},
        )

    @property
    def object_axes(self) -> Axes:
        """The object PCA."""
        return Axes(self.object_mean_, self.object_components_, self.object_variance_, self.object_ratio_)

    def split(self, tokens: Tokens, *, name: str = "features") -> PhotoColors:
        """Score, foreground, colours and all-patch picture of one photo, from its tokens (h, w, D).

        ``name`` is the name of the photo, for its mask and for errors, which are those of
        :meth:`Prism.transform <patchprism.Prism.transform>`.
        """
        self.check_options()  # options may have been set since the fit
        tokens = self._checked(tokens, name)
        scorer = self.scorer
        scene = scorer.scene.coordinates(tokens)
        score = scorer.score_of(tokens, scene=scene, photo=name)
        foreground = self._shown_mask(score)
        rgb = np.zeros((*foreground.shape, 3), np.float32)
        rgb[foreground] = self.colors_of(self.object_components(tokens[foreground]))
        flat = chosen(self.scene_variance_, self.components, signed=False) == 0
        low, high = self.all_range_
        values = all_patch_values(scene, foreground, self.components)
        rgb_all = scale_range(values, low, np.where(flat, low, high))
        return PhotoColors(score, foreground, rgb, lay_out(rgb_all, self.space))

    def scene_components(self, tokens: Tokens) -> Float64:
        """Coordinates along the components of the scene PCA, (..., D) -> (..., k)."""
        return self.scorer.scene.coordinates(tokens)

    def object_components(self, tokens: Tokens) -> Float64:
        """Coordinates along the components of the object PCA, (..., D) -> (..., k)."""
        return self.object_axes.coordinates(tokens)

    def score_of(self, tokens: Tokens) -> NDArray[np.float32]:
        """Scores of one photo without a mask, (h, w) float32 in [0, 1]."""
        return self.scorer.score_of(tokens)

    def foreground_of(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Foreground of one photo, (h, w) bool, with the fitted threshold and side."""
        return self.scorer.foreground_of(tokens)

    def colors_of(self, components: Float64) -> NDArray[np.float32]:
        """Colours from coordinates along the components of the object PCA, (n, k) -> (n, 3) in [0, 1]."""
        values = chosen(components, self.components)
        deviation = np.sqrt(chosen(self.object_variance_, self.components, signed=False))
        if self.scaling == "sigmoid":
            return lay_out(scale_sigmoid(values, deviation), self.space)
        low, high = chosen(self.object_range_, self.components)
        # The range of an inverted component is inverted, too. A component without variance is flat.
        low, high = np.minimum(low, high), np.maximum(low, high)
        return lay_out(scale_range(values, low, np.where(deviation > 0, high, low)), self.space)

    @property
    def shown_side(self) -> str:
        """The side of the threshold that is shown as foreground."""
        return self.mask_side or self.side_

    @property
    def shown_threshold(self) -> float:
        """The threshold of the shown foreground; NaN if all patches are kept."""
        if self.shown_side == "none":
            return float("nan")
        return self.threshold_ if self.mask_threshold is None else self.mask_threshold

    def _shown_mask(self, score: NDArray[np.float32]) -> NDArray[np.bool_]:
        mask = split_at(score, self.shown_threshold, self.shown_side)
        return clean(mask, opening=self.opening, closing=self.closing)

    def _checked(self, tokens: Any, name: str) -> Tokens:
        if not self.is_fitted:
            raise PrismError("this prism is not fitted yet: call fit, or load one")
        width, array = len(self.scene_mean_), as_tokens(tokens, name)
        if array.ndim != 3 or array.shape[2] != width:
            raise PrismError(f"{name}: this prism is fitted on features of width {width}, got {array.shape}")
        check_tokens(array, name)
        return array

    # ---------------------------------------------------------------- reporting

    def summary(self) -> dict[str, Any]:
        """Results of the fit, as numbers and words, for reports."""
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
            **({"classes": list(self.head_.classes_)} if self.head_ is not None else {}),
        }

    @property
    def method_(self) -> str:
        """How the foreground was found: ``"object"``, ``"mask"``, ``"pca"`` (a scene component), or ``"none"``."""
        if self.head_ is not None:
            return "mask"
        return "none" if self.side_ == "none" else "pca" if self.direction_ is None else "object"

    def _threshold_from(self) -> str:
        if not isinstance(self.threshold, str):
            return "given"
        if self.threshold == "auto" and self.method_ in ("object", "mask"):
            return "labels" if self.method_ == "object" else "head"
        return "otsu"

    @property
    def undecided_(self) -> bool:
        """Whether the side was chosen by border shares that are too close to distinguish the sides."""
        chosen = self.foreground in ("auto", "object", "pca")
        return self.method_ == "pca" and chosen and not self._sides_differ()

    def doubts(
        self, tokens: Tokens, foreground: NDArray[np.bool_], *, labelled: bool = False
    ) -> dict[str, float]:
        """Numbers that show how far to trust the foreground of one photo.

        Parameters
        ----------
        tokens : ndarray, shape (h, w, D)
        foreground : ndarray, shape (h, w), bool
        labelled : bool
            Whether to label the photo, which takes about 25 ms per 1,400 patches.

        Returns
        -------
        dict
            ``border_ratio``: the share of the border that is foreground, divided by the share of the photo that is;
            about 0 for an object inside the photo. ``contrast``: length of the difference between the mean unit
            tokens of foreground and background, from 0 to 2. ``likeness``: mean cosine between all patches of the
            photo. With ``labelled``, ``agreement``: intersection over union of the foreground with the labels of this
            photo.
        """
        units = unit(tokens)
        difference = class_difference(units, foreground)
        mean = units.reshape(-1, units.shape[-1]).mean(axis=0, dtype=np.float64)
        return {
            "border_ratio": round(border_ratio(foreground), 4),
            "contrast": 0.0 if difference is None else round(float(np.linalg.norm(difference)), 4),
            "likeness": round(float(mean @ mean), 4),
            **({"agreement": round(agreement(foreground, label_units(units)), 4)} if labelled else {}),
        }

    def _sides_differ(self) -> bool:
        least, most = sorted(self.border_share_.values())
        return least < UNDECIDED_RATIO * most

    def hints(self) -> list[str]:
        """Hints about the fitted side, in whole sentences."""
        above, below = self.border_share_["above"], self.border_share_["below"]
        if self.undecided_:
            return [
                f"no object was found: {above:.0%} of the patches above the threshold lie on the photos' borders, and "
                f"{below:.0%} of those below, so the side of the object is undecided; look at the histogram, and try "
                "foreground='above', foreground='below' or foreground='none'"
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
            f"photos' borders, and {theirs:.0%} of those {other}; try foreground={other!r}"
        ]

    def _side_reason(self) -> str:
        if self.head_ is not None:
            photos = counted(self.n_voters_, "photo")
            agree = "" if np.isnan(self.agreement_) else f" (agreement {self.agreement_:.0%})"
            return f"taught with masks of {photos}{agree}"
        if self.direction_ is not None:
            voters = counted(self.n_voters_, "photo")
            return f"learned from labels of {voters} (agreement {self.agreement_:.0%})"
        if self.foreground in ("above", "below", "none"):
            return "as asked" if self.side_ != "none" else "all patches kept, as asked"
        other = "below" if self.side_ == "above" else "above"
        mine, theirs = self.border_share_[self.side_], self.border_share_[other]
        undecided = "undecided: " if self.undecided_ else ""
        return (
            f"{undecided}{mine:.0%} of the patches {self.side_} lie on the photos' borders, of those {other} "
            f"{theirs:.0%}"
        )
