"""Prism: splits patch tokens into foreground and colours. Everything that it learns can be saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import FeaturesError, OptionError, PrismError
from patchprism.features.patch_features import as_features
from patchprism.prism.axes import Axes, Scorer
from patchprism.prism.file import LEARNED, State, prism_bytes, read_prism
from patchprism.prism.fitted import FittedPrism
from patchprism.prism.foreground import Voters
from patchprism.prism.head import Head
from patchprism.prism.labels import packed_shares, shares_of_masks
from patchprism.prism.options import DEFAULTS, check_taught
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
from patchprism.support.files import atomic_write
from patchprism.support.folders import address_text, is_remote, local_path
from patchprism.support.words import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from patchprism.features.patch_features import PatchFeatures
    from patchprism.prism.passes import Walk


@dataclass(eq=False, repr=False, kw_only=True)
class Prism(FittedPrism):
    """Everything that is learned from photos: fitted once, then applied to every photo in the same way.

    Parameters
    ----------
    threshold : float, "auto" or "otsu", default="auto"
        Score, between 0 and 1, that separates foreground from background. ``"otsu"`` finds it from the scores of all
        photos. ``"auto"`` depends on ``foreground``: the threshold that agrees best with the labels of the photos for
        ``"object"``, 0.5 for ``"mask"``, and Otsu's threshold otherwise.
    foreground : {"auto", "object", "mask", "pca", "above", "below", "none"}, default="auto"
        How the foreground is found. ``"object"`` learns one direction from labels that each photo gives to its own
        patches; objects are what differs from the patches along the borders (:mod:`patchprism.prism.foreground`).
        ``"mask"`` uses a head, or fits one to masks (:class:`~patchprism.Head`); a photo with a mask keeps it.
        ``"auto"`` means ``"mask"`` if the fit gets masks or a head, and ``"object"`` otherwise. ``"pca"`` uses a
        component of the scene PCA as the score, and keeps the side of the threshold that touches the borders less;
        ``"above"`` and ``"below"`` keep the side that they name. ``"none"`` keeps all patches.
    foreground_component : {1, 2, 3}, default=1
        The scene component that ``"pca"``, ``"above"`` and ``"below"`` use.
    scaling : {"minmax", "percentile", "sigmoid"}, default="minmax"
        How components become colours: by their smallest and largest value over the fitted foreground, by their 1st
        and 99th percentile, or by the sigmoid of twice the whitened component.
    components : tuple of three int, default=(1, 2, 3)
        Components that become red, green and blue, from 1 to 8. A negative number inverts the component.
    space : {"rgb", "oklab"}, default="rgb"
        Components as red, green and blue, or as axes of OKLab, where equal steps look equal; see
        :func:`~patchprism.prism.oklab.fill_cube`.
    signs : {"stable", "largest"}, default="stable"
        How the sign of each component is fixed. The loading with the largest magnitude is positive. With
        ``"stable"``, near ties are decided by a rule that small changes do not affect
        (:func:`~patchprism.prism.moments.fix_signs`).
    mask_threshold, mask_side : float and {"above", "below", "none"}, optional
        Show another foreground than the fitted one. ``threshold`` and ``foreground`` still determine the fit, so
        colours do not change; these options only determine which patches have one.
    opening, closing : int, default=0
        Clean the shown foreground: remove specks of up to ``opening`` patches, then fill holes of up to ``closing``
        patches (:func:`patchprism.prism.morphology.clean`).

    Attributes
    ----------
    scene_mean_, object_mean_ : ndarray, shape (D,), float64
    scene_components_, object_components_ : ndarray, shape (k, D), float64
    scene_variance_, object_variance_ : ndarray, shape (k,), float64
        Zero if a component is only rounding noise.
    scene_ratio_, object_ratio_ : ndarray, shape (k,), float64
        Share of the variance that each component explains.
    direction_ : ndarray, shape (D,), float64, or None
        The foreground direction; None if the score is something else.
    head_ : Head or None
        The head that finds the foreground, with ``"mask"``.
    agreement_ : float
        Intersection over union of the foreground with the labels, or of the head's foreground with the masks: the
        mean over all labelled photos. NaN without labels and masks.
    n_voters_ : int
        Number of photos that the direction or the head was learned from; 0 without either.
    score_range_ : ndarray, shape (2,), float64
        The values that become the scores 0 and 1.
    threshold_ : float
        In [0, 1]; NaN with ``foreground="none"``.
    side_ : {"above", "below", "none"}
    border_share_ : dict
        For each side, the share of its patches that are on the border of a photo.
    object_range_ : ndarray, shape (2, k), float64
        The two values of each object component that become 0 and 1 (not used by ``"sigmoid"``).
    all_range_ : ndarray, shape (2, 3), float64
        The same for the three channels of the picture of all patches.
    score_histogram_ : ndarray, shape (256,), int64
        Counts of the fitted patches' scores in equal bins of [0, 1].
    n_photos_, n_patches_, n_foreground_ : int
    agreements : dict
        For each labelled photo of the last fit, by its index, its intersection over union; ``agreement_`` is their
        mean. Not saved in the file.
    label_counts : ndarray, shape (2, 1024), int64, or None
        Histograms of the scores, in equal bins of [0, 1], of the patches that the photos of the last fit labelled as
        background and as object. None without labels; not saved in the file.
    origin : dict
        Model, weights, framing and dtype of the features. Set by the caller, and saved in the file.
    head : Head or None
        The head that the next fit uses with ``"mask"``. Set by the caller.
    masks : dict
        Masks that replace the scores of photos, by the names of the photos
        (:func:`~patchprism.prism.labels.packed_shares`). Not saved in the file.

    Notes
    -----
    The method is that of Figure 1 in Oquab et al., "DINOv2: Learning Robust Visual Features without
    Supervision" (2023); scaling by sigmoid(2x) is from the DINOv3 notebook.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tokens = rng.normal(size=(2, 8, 8, 16)).astype(np.float32)
    >>> tokens[..., 0] += 5  # a part that background and object have in common
    >>> tokens[:, 2:6, 2:6, 1] += 9
    >>> prism = Prism().fit(tokens)
    >>> int(prism.foreground_of(tokens[0]).sum())
    16
    >>> prism.transform(tokens)[0].shape
    (8, 8, 3)
    """

    origin: dict[str, Any] = field(init=False, default_factory=dict)
    # The file that the fit was read from; a job that reads it does not replace it.
    loaded_from: str = field(init=False, default="")
    agreements: dict[int, float] = field(init=False, default_factory=dict)
    label_counts: NDArray[np.int64] | None = field(init=False, default=None)
    head: Head | None = field(init=False, default=None)
    masks: dict[str, bytes] = field(init=False, default_factory=dict)

    # ---------------------------------------------------------------- fitting

    def fit(self, X: PatchFeatures | Any, y: Any = None) -> Self:
        """Learn from the patches of all photos together.

        Parameters
        ----------
        X : PatchFeatures or sequence of array-like, each (h, w, D)
        y : Head, or sequence or mapping of masks, optional
            A fitted head, or masks to fit one to, as for :meth:`Head.fit <patchprism.Head.fit>`.

        Raises
        ------
        OptionError
            If an option has a value that is not allowed, or cannot be combined with ``y``.
        PhotoError
            If a mask does not fit its photo; the photo is named.
        FeaturesError
            If a token is not finite; the photo is named.
        PrismError
            If no patch is left in the foreground.
        """
        photos = as_features(X)
        self.check_fit()
        self.head, self.masks, given = None, {}, {}
        if y is not None:
            check_taught(self.foreground)
        if isinstance(y, Head):
            self.head = y
        elif y is not None:
            shares = shares_of_masks(photos, y)
            self.head = Head().fit_shares(photos, shares)
            given = {index: packed_shares(each) for index, each in shares.items()}
            self.masks = {photos.names[index]: each for index, each in given.items()}

        def walk(make: Callable[[], PassT]) -> PassT:
            made = make()
            for index, (name, tokens) in enumerate(zip(photos.names, photos, strict=True)):
                try:
                    made.update(tokens, index)
                except FeaturesError as error:
                    raise FeaturesError(f"{name}: {error}") from error
            return made

        return self.fit_by(walk, n_photos=len(photos), masks=given)

    def fit_by(self, walk: Walk, *, n_photos: int, masks: Mapping[int, bytes] | None = None) -> Self:
        """Learn from passes over the photos, which the caller runs.

        Parameters
        ----------
        walk : callable
            ``walk(make)`` adds all photos to the pass ``make()`` and returns it.
        n_photos : int
            Maximum number of photos. It determines which of them are labelled.
        masks : mapping of int to bytes, optional
            The ``masks`` by the index of the photo.
        """
        self.check_fit()
        self.loaded_from = ""
        head = self._head_for_fit()
        voters = Voters(n_photos) if head is None and self.foreground in ("auto", "object") else None
        patches = walk(partial(SceneMoments, voters))
        if patches.moments is None:
            raise FeaturesError("features need at least one photo, got none")
        scene = Axes.of(patches.moments, signs=self.signs)
        votes = patches.votes
        direction = None if votes is None else votes.direction()
        labels = {} if votes is None or direction is None else votes.labels
        scorer = Scorer(scene, self.foreground_component, direction)
        if head is not None:
            head.check_width(len(scene.mean))
            scorer = replace(scorer, head=head, given=masks or {})
        else:
            extent = walk(partial(ScoreRange, scorer)).extent
            scorer = replace(scorer, extent=(extent.low[0], extent.high[0]))
        given = None if isinstance(self.threshold, str) else float(self.threshold)
        if head is not None and self.threshold == "auto":
            given = 0.5  # where object and background are equally probable
        counts = walk(partial(ScoreCounts, scorer, given, labels))
        scorer, shares = self._separate(scorer, counts)
        in_object = walk(partial(ObjectMoments, scorer, self.components, labels))
        if not in_object.moments.count:
            raise PrismError(_no_foreground(scorer))
        axes = Axes.of(in_object.moments, signs=self.signs)
        extent = walk(partial(ObjectRange, scorer, axes)).extent
        ends = extent.low, extent.high
        if self.scaling == "percentile":
            histogram = walk(partial(ObjectHistogram, scorer, axes, extent))
            ends = histogram.percentile(1), histogram.percentile(99)
        self.n_photos_, self.n_patches_ = patches.n_photos, patches.moments.count
        self.n_foreground_ = in_object.moments.count
        self.n_voters_ = 0 if votes is None or direction is None else votes.count
        self.head_ = head
        if head is not None:
            self.n_voters_ = head.n_photos_
        self.agreements = in_object.agreements
        self.label_counts = counts.curves.counts if counts.curves.count else None
        self.agreement_ = float(np.mean(list(self.agreements.values()))) if self.agreements else float("nan")
        self.scene_mean_, self.scene_components_ = scene.mean, scene.components
        self.scene_variance_, self.scene_ratio_ = scene.variance, scene.ratio
        self.direction_, self.score_range_ = direction, np.array(scorer.extent)
        self.threshold_, self.side_ = scorer.threshold, scorer.side
        self.score_histogram_, self.border_share_ = counts.histogram(), shares
        self.object_mean_, self.object_components_ = axes.mean, axes.components
        self.object_variance_, self.object_ratio_ = axes.variance, axes.ratio
        self.object_range_ = np.stack(ends)
        self.all_range_ = np.stack([in_object.extent.low, in_object.extent.high])
        return self

    def _separate(self, scorer: Scorer, counts: ScoreCounts) -> tuple[Scorer, dict[str, float]]:
        """The scorer with its threshold and side, and the border share of each side."""
        threshold = counts.threshold
        if threshold is None:
            by_labels = self.threshold == "auto" and scorer.direction is not None
            threshold = counts.curves.best() if by_labels else otsu(counts.histogram())
        sides = counts.sides(threshold)
        shares = {side: sides.border_share(side) for side in ("above", "below")}
        if self.foreground == "none":
            return scorer, shares
        side = self.foreground
        if scorer.direction is not None or scorer.head is not None:
            side = "above"
        elif side in ("auto", "object", "pca"):
            above_less = shares["above"] <= shares["below"] and sides.above
            side = "above" if above_less or not sides.below else "below"
        return replace(scorer, threshold=threshold, side=side), shares

    def _head_for_fit(self) -> Head | None:
        if self.foreground not in ("auto", "mask"):
            return None
        if self.head is None and self.foreground == "mask":
            raise OptionError("foreground 'mask' needs masks, or a head that was taught from masks")
        return self.head

    # ---------------------------------------------------------------- using

    def transform(self, X: PatchFeatures | Any) -> list[NDArray[np.float32]]:
        """Colours of photos.

        Parameters
        ----------
        X : PatchFeatures or sequence of array-like, each (h, w, D)

        Returns
        -------
        list of ndarray, each (h, w, 3), float32, in [0, 1]
            Background is 0.

        Raises
        ------
        PrismError
            If the prism is not fitted, or was fitted with another width.
        FeaturesError
            If a token is not finite; the photo is named.
        """
        photos = as_features(X)
        return [self.split(tokens, name=name).rgb for name, tokens in zip(photos.names, photos, strict=True)]

    def fit_transform(self, X: PatchFeatures | Any, y: None = None) -> list[NDArray[np.float32]]:
        """:meth:`fit`, then :meth:`transform` of the same features."""
        return self.fit(X).transform(X)

    # ---------------------------------------------------------------- keeping

    def to_bytes(self) -> bytes:
        """The content of the file that :meth:`save` writes; see :mod:`patchprism.prism.file` for the layout.

        Raises
        ------
        PrismError
            If the prism is not fitted, or its ``origin`` has values that a file cannot keep.
        """
        if not self.is_fitted:
            raise PrismError("this prism is not fitted yet: there is nothing to save")
        learned = {name: getattr(self, f"{name}_") for name in LEARNED}
        return prism_bytes(State(self, learned, self.origin))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the prism to a file.

        Raises
        ------
        PrismError
            As for :meth:`to_bytes`.
        OutputError
            If the file cannot be written.
        """
        path, content = checks.path("path", path), self.to_bytes()
        with atomic_write(path) as part:
            part.write_bytes(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prism:
        """Read a prism that :meth:`save` wrote.

        Raises
        ------
        PrismError
            If the file is missing, not a prism, damaged, or from a newer version.
        """
        state = read_prism(path)
        prism = cls(**state.options.get_params())
        prism.origin = state.origin
        name = address_text(path)
        prism.loaded_from = name if is_remote(name) else str(local_path(name).absolute())
        for name, value in state.learned.items():
            setattr(prism, f"{name}_", value)
        prism.head = prism.head_
        return prism

    def __sklearn_tags__(self) -> Any:
        """Required by scikit-learn's pipelines. Inheriting it would make every job import scikit-learn."""
        from sklearn.base import BaseEstimator
        from sklearn.utils import TransformerTags

        tags = BaseEstimator().__sklearn_tags__()
        tags.transformer_tags = TransformerTags(preserves_dtype=[])
        return tags

    def __repr__(self) -> str:
        shown = {name: checks.short_repr(value) for name, value in self.get_params().items()}
        parts = [
            f"{name}={value}" for name, value in shown.items() if value != checks.short_repr(DEFAULTS[name])
        ]
        parts.append(f"fitted on {counted(self.n_photos_, 'photo')}" if self.is_fitted else "not fitted")
        if self.is_fitted and self.undecided_:
            parts.append(f"side {self.side_} but undecided")
        return f"Prism({', '.join(parts)})"


def _no_foreground(scorer: Scorer) -> str:
    if not scorer.scene.variance[0]:
        return "all patches have the same features, so there is no foreground to find; foreground='none' keeps all"
    return (
        f"no patch's score is {scorer.side} the threshold {scorer.threshold:g}; "
        "choose another threshold, or foreground='none' to keep all"
    )
