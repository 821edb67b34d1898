"""Head: a linear classifier of patch tokens, fitted to masks or clicks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import FeaturesError, HeadError, OptionError
from patchprism.features.patch_features import as_features, check_tokens
from patchprism.prism.foreground import unit
from patchprism.prism.head_file import class_names, default_names, head_bytes, read_head
from patchprism.prism.labels import UNLABELLED, patch_labels, shares_of_masks
from patchprism.support import checks
from patchprism.support.files import atomic_write
from patchprism.support.folders import address_text
from patchprism.support.options import check_options, option
from patchprism.support.words import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import PatchFeatures, Tokens

    Walk = Callable[[Callable[[], "LabelledRows"]], "LabelledRows"]
    Float64 = NDArray[np.float64]
    Labels = NDArray[np.int16]

# Maximum number of numbers in the tokens of a fit: 87,000 patches of width 384, which are 256 MB as float64.
MOST_NUMBERS = 1 << 25
# Decisions are rounded to multiples of this number, so that they do not depend on the order of additions.
GRID = 2.0**-12


@dataclass(eq=False, repr=False, kw_only=True)
class Head:
    """A linear classifier of patches: logistic regression on unit tokens, fitted to masks or clicks.

    Class 0 is the background, and all other classes together are the foreground. So a head can replace the automatic
    foreground (``foreground="mask"`` of a :class:`~patchprism.Prism`).

    Parameters
    ----------
    C : float, default=10
        Inverse strength of the penalty on large weights, as in scikit-learn.
    classes : sequence of str, optional
        Names of the classes, the background first. By default ``("background", "object")``, or ``"class 1"``,
        ``"class 2"``, ... if there are more.

    Attributes
    ----------
    weights_ : ndarray, shape (K, D), float64
    bias_ : ndarray, shape (K,), float64
    classes_ : tuple of str
    n_photos_ : int
        Number of photos with labels.
    n_patches_ : tuple of int
        Number of patches of each class in the fit.
    origin : dict
        Model, weights, framing and layer of the features, if they are known. Saved in the file.

    Notes
    -----
    For unit tokens x_i (not centred) with labels y_i among K classes, ``fit`` finds the unique minimum of

        1/2 sum_k |w_k|^2  -  C sum_i s_i log p_i(y_i),    p_i = softmax_k(w_k . x_i + b_k),

    where s_i = n / (K n_k) for a patch of class k = y_i; n is the number of labelled patches and n_k the number of
    those of class k. So all classes have the same weight. The intercepts b_k are not penalised. They are shifted so
    that they add up to 0, as the weights do at the minimum. scikit-learn's ``LogisticRegression`` (L-BFGS, float64)
    solves this until no partial derivative of the objective divided by (C n) exceeds 1e-10. For K = 2 this is its
    binary model with 2 C and w = w_1 - w_0.

    A patch gets the label that at least three quarters of its labelled area have. Mixed patches are left out. If the
    labelled patches contain more than 2**25 numbers, every photo contributes at most the same number of patches per
    class, evenly spaced.

    For predictions, w_k . x + b_k is rounded to multiples of 2**-12, so that the result does not depend on the order
    of additions. The score of a patch is 1 - p(background). A patch is foreground if its score is above 0.5.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tokens = rng.normal(size=(3, 8, 8, 16)).astype(np.float32)
    >>> tokens[..., 0] += 5  # a part that background and object have in common
    >>> tokens[:, 2:6, 2:6, 1] += 9
    >>> mask = np.zeros((8, 8), bool)
    >>> mask[2:6, 2:6] = True
    >>> head = Head().fit(tokens, [mask, None, None])
    >>> [int(classes.sum()) for classes in head.predict(tokens)]
    [16, 16, 16]
    """

    C: float = option(10.0, check=partial(checks.number, low=1e-6, high=1e6))
    classes: Sequence[str] | None = option(
        None, check=checks.optional(lambda name, value: class_names(value))
    )

    origin: dict[str, Any] = field(init=False, default_factory=dict)
    # The file that the head was read from; a job that reads it does not replace it.
    loaded_from: str = field(init=False, default="")

    weights_: Float64 = field(init=False)
    bias_: Float64 = field(init=False)
    classes_: tuple[str, ...] = field(init=False)
    n_photos_: int = field(init=False)
    n_patches_: tuple[int, ...] = field(init=False)

    # ---------------------------------------------------------------- scikit-learn's methods

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, for scikit-learn's ``clone``; ``deep`` has no effect."""
        return {"C": self.C, "classes": self.classes}

    def set_params(self, **params: Any) -> Self:
        """Set options by name; their values are checked by the next fit.

        Raises
        ------
        OptionError
            If there is no option of that name. In this case, no option is changed.
        """
        for name in params:
            if name not in ("C", "classes"):
                raise OptionError(f"Head has no option {name!r}; it has C, classes")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(self, X: PatchFeatures | Any, y: Any) -> Self:
        """Learn from the photos that have a mask.

        Parameters
        ----------
        X : PatchFeatures or sequence of array-like, each (h, w, D)
            Features, or a feature store (:class:`~patchprism.StoredFeatures`).
        y : sequence or mapping
            One mask per photo, with None for a photo without a mask, or a mapping from names of photos to masks. A
            mask is boolean or integer. It has the shape of the grid (h, w), or any resolution (H, W) with the shape
            of the photo. 0 is background, 1 and above are the other classes, -1 and 255 are unlabelled. If all masks
            contain only 0 and 255, then 255 is the object.

        Raises
        ------
        OptionError
            If an option has a value that is not allowed, or a class has no patch.
        PhotoError
            If a mask does not fit its photo; the photo is named.
        FeaturesError
            If a token is not finite; the photo is named.
        """
        photos = as_features(X)
        check_options(self)
        n_classes = len(self.classes) if self.classes else None
        return self.fit_shares(photos, shares_of_masks(photos, y, n_classes=n_classes))

    def fit_shares(self, photos: PatchFeatures, shares: Mapping[int, NDArray[np.float64]]) -> Self:
        """Learn from the share of each patch that each class covers, (h, w, K), by the index of the photo."""
        labels = {index: patch_labels(each) for index, each in shares.items()}

        def walk(make: Any) -> Any:
            made = make()
            for index in sorted(labels):
                try:
                    made.update(photos[index], index)
                except FeaturesError as error:
                    raise FeaturesError(f"{photos.names[index]}: {error}") from error
            return made

        return self.fit_by(walk, labels, origin=photos.origin)

    def fit_by(self, walk: Walk, labels: Mapping[int, Labels], *, origin: Mapping[str, Any]) -> Self:
        """Learn from a pass over the photos, which the caller runs.

        Parameters
        ----------
        walk : callable
            ``walk(make)`` adds the photos to the pass ``make()`` and returns it.
        labels : mapping of int to ndarray, each (h, w), int16
            Classes of patches by the index of the photo in the job; ``UNLABELLED`` for unlabelled patches.
        origin : mapping
            What the features depend on.
        """
        check_options(self)
        self.loaded_from = ""
        given = {index: each for index, each in labels.items() if (each != UNLABELLED).any()}
        found = {int(value) for each in given.values() for value in np.unique(each)}
        names = self.classes or default_names(max(2, max(found, default=0) + 1))
        missing = [name for number, name in enumerate(names) if number not in found]
        if missing:
            listed = ", ".join(missing[:5])
            raise OptionError(
                f"the masks label no patch as {listed}; each class must cover most of at least one patch"
            )
        rows = walk(partial(LabelledRows, {index: given[index] for index in sorted(given)}))
        tokens, classes = rows.joined()
        self.weights_, self.bias_ = _solve(tokens, classes, len(names), self.C)
        self.classes_, self.n_photos_ = tuple(names), len(given)
        self.n_patches_ = tuple(np.bincount(classes, minlength=len(names)).tolist())
        self.origin = dict(origin)
        return self

    def predict(self, X: PatchFeatures | Any) -> list[NDArray[np.int16]]:
        """The class of each patch: a list of (h, w) arrays of indices into ``classes_``.

        A foreground patch (score above 0.5) gets the most probable class other than the background.

        Raises
        ------
        HeadError
            If the head is not fitted, or was fitted on features of another width.
        FeaturesError
            If a token is not finite; the photo is named.
        """
        return [self.classes_of(tokens) for tokens in self._photos(X)]

    def predict_proba(self, X: PatchFeatures | Any) -> list[NDArray[np.float32]]:
        """The probabilities of the classes, a list of (h, w, K) arrays; raises the errors of :meth:`predict`."""
        return [softmax(self.decisions_of(tokens)).astype(np.float32) for tokens in self._photos(X)]

    def decision_function(self, X: PatchFeatures | Any) -> list[Float64]:
        """The values w_k . x + b_k, a list of (h, w, K) arrays; raises the errors of :meth:`predict`."""
        return [self.decisions_of(tokens) for tokens in self._photos(X)]

    # ---------------------------------------------------------------- one photo

    def decisions_of(self, tokens: Tokens) -> Float64:
        """w_k . x + b_k of one photo's tokens, (h, w, D) -> (h, w, K)."""
        return decisions(tokens, self.weights_, self.bias_)

    def score_of(self, tokens: Tokens) -> NDArray[np.float32]:
        """1 - p(background) of one photo's tokens, (h, w, D) -> (h, w) in [0, 1]."""
        return foreground_score(self.decisions_of(tokens))

    def classes_of(self, tokens: Tokens) -> NDArray[np.int16]:
        """Classes of one photo's patches, (h, w, D) -> (h, w)."""
        found = self.decisions_of(tokens)
        classes = np.where(foreground_score(found) > 0.5, found[..., 1:].argmax(axis=-1) + 1, 0)
        return classes.astype(np.int16)

    @property
    def is_fitted(self) -> bool:
        """Whether this head is fitted."""
        return hasattr(self, "weights_")

    def _photos(self, X: Any) -> PatchFeatures:
        if not self.is_fitted:
            raise HeadError("this head is not fitted yet: call fit, or load one")
        photos = as_features(X)
        self.check_width(photos.width)
        return photos

    def check_width(self, width: int) -> None:
        """Refuse tokens of another width than those of the fit.

        Raises
        ------
        HeadError
            If the width differs.
        """
        taught = self.weights_.shape[1]
        if width != taught:
            raise HeadError(f"this head is taught on features of width {taught}, got {width}")

    # ---------------------------------------------------------------- keeping

    def to_bytes(self) -> bytes:
        """The content of the file that :meth:`save` writes; see :mod:`patchprism.prism.head_file` for the layout.

        Raises
        ------
        HeadError
            If the head is not fitted, or its ``origin`` has values that a file cannot keep.
        """
        if not self.is_fitted:
            raise HeadError("this head is not fitted yet: there is nothing to save")
        return head_bytes(self.header() | {"origin": self.origin}, self.weights_, self.bias_)

    def header(self) -> dict[str, Any]:
        """The content of the file without weights and origin, as JSON values."""
        return {
            "classes": list(self.classes_),
            "C": float(self.C),
            "n_photos": self.n_photos_,
            "n_patches": list(self.n_patches_),
        }

    @classmethod
    def of(cls, header: Mapping[str, Any], weights: Float64, bias: Float64) -> Self:
        """Make a head from a checked header, its origin and its arrays."""
        head = cls(C=float(header["C"]), classes=tuple(header["classes"]))
        head.weights_, head.bias_ = weights, bias
        head.classes_, head.n_photos_ = tuple(header["classes"]), header["n_photos"]
        head.n_patches_, head.origin = tuple(header["n_patches"]), header["origin"]
        return head

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the head to a file, usually ``NAME.head.safetensors``.

        Raises
        ------
        HeadError
            As for :meth:`to_bytes`.
        OutputError
            If the file cannot be written.
        """
        path, content = checks.path("path", path), self.to_bytes()
        with atomic_write(path) as part:
            part.write_bytes(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a head that :meth:`save`, ``patchprism teach`` or the explorer's page wrote.

        Raises
        ------
        HeadError
            If the file is missing, not a head, damaged, or from a newer version.
        """
        header, weights, bias = read_head(path)
        head = cls.of(header, weights, bias)
        head.loaded_from = address_text(path)
        return head

    def __sklearn_tags__(self) -> Any:
        """Required by scikit-learn. Inheriting it would make every job import scikit-learn."""
        from sklearn.base import BaseEstimator

        return BaseEstimator().__sklearn_tags__()

    def __repr__(self) -> str:
        parts = [] if self.C == 10.0 else [f"C={checks.short_repr(self.C)}"]
        if self.is_fitted:
            parts.append(f"{', '.join(self.classes_)}; taught on {counted(self.n_photos_, 'photo')}")
        else:
            parts.append("not fitted")
        return f"Head({', '.join(parts)})"


# ---------------------------------------------------------------- arithmetic


def decisions(tokens: Tokens, weights: Float64, bias: Float64) -> Float64:
    """w_k . x + b_k of unit tokens x, (..., D) -> (..., K), rounded to multiples of ``GRID``."""
    rows = np.asarray(tokens, np.float64).reshape(-1, tokens.shape[-1])
    values = decisions_from(rows @ weights.T, np.einsum("nd,nd->n", rows, rows), bias)
    return values.reshape(*tokens.shape[:-1], len(bias))


def decisions_from(products: Float64, squares: Float64, bias: Float64) -> Float64:
    """The same decisions, (n, K), from the products of tokens and weights (n, K) and the squared lengths (n,)."""
    length = np.sqrt(squares)[:, np.newaxis]
    rounded: Float64 = np.rint((products / np.where(length > 0, length, 1.0) + bias) / GRID) * GRID
    return rounded


def softmax(values: Float64) -> Float64:
    """Probabilities from decisions, (..., K)."""
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: Float64 = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def foreground_score(values: Float64) -> NDArray[np.float32]:
    """1 - p(background) from decisions, (..., K) -> (...) in [0, 1]."""
    score: NDArray[np.float32] = softmax(values)[..., 1:].sum(axis=-1).astype(np.float32)
    return np.minimum(score, np.float32(1.0))


def _solve(rows: NDArray[np.float32], classes: Labels, n_classes: int, C: float) -> tuple[Float64, Float64]:
    """Weights (K, D) and intercepts (K,) of unit tokens (n, D) and their classes (n,)."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # For two classes, scikit-learn fits one vector, w_1 - w_0, whose penalty is twice that of the two vectors.
    binary = n_classes == 2
    model = LogisticRegression(
        C=2 * C if binary else C, class_weight="balanced", solver="lbfgs", tol=1e-10, max_iter=5000
    )
    with warnings.catch_warnings():
        # The tolerance may be smaller than the precision of float64 allows.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows.astype(np.float64), classes)
    weights, bias = model.coef_, model.intercept_
    if binary:
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights - weights.mean(axis=0), bias - bias.mean()


class LabelledRows:
    """A pass that keeps the unit tokens of labelled patches."""

    def __init__(self, labels: Mapping[int, Labels]) -> None:
        self.labels = labels
        self.rows: dict[int, NDArray[np.float32]] = {}
        self.classes: dict[int, Labels] = {}

    def update(self, tokens: Tokens, index: int) -> None:
        """Add a photo's tokens, (h, w, D); photos without labels are ignored."""
        labels = self.labels.get(index)
        if labels is None:
            return
        check_tokens(tokens, "features")
        flat, n_classes = labels.ravel(), 1 + max(int(each.max()) for each in self.labels.values())
        most = max(1, MOST_NUMBERS // (tokens.shape[-1] * len(self.labels) * n_classes))
        taken = np.sort(np.concatenate([_spaced(np.flatnonzero(flat == k), most) for k in range(n_classes)]))
        self.rows[index] = unit(tokens.reshape(len(flat), -1)[taken])
        self.classes[index] = flat[taken]

    def merge(self, other: LabelledRows) -> None:
        """Add the photos of another pass."""
        self.rows |= other.rows
        self.classes |= other.classes

    def joined(self) -> tuple[NDArray[np.float32], Labels]:
        """All rows (n, D) and their classes (n,), in the order of the photos."""
        order = sorted(self.rows)
        if not order:
            raise OptionError("no photo that could be read has a mask")
        return np.concatenate([self.rows[i] for i in order]), np.concatenate([self.classes[i] for i in order])


def _spaced(places: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most ``most`` of the places, evenly spaced."""
    every = -(-len(places) // most) if len(places) else 1
    return places[::every]
