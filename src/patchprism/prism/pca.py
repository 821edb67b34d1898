"""StreamingPCA: an exact PCA for rows that arrive in batches, with the interface of scikit-learn.

This module imports scikit-learn, which takes 1.5 s. The rest of PatchPrism uses :mod:`patchprism.prism.moments`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from patchprism.errors import FeaturesError, OptionError
from patchprism.prism.moments import Moments, Principal, project
from patchprism.support import checks
from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


class StreamingPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Exact principal component analysis in one pass and bounded memory.

    The components are those of :class:`sklearn.decomposition.PCA` (``svd_solver="covariance_eigh"``), computed from
    batches of any size in any order. Results of several processes can be merged. The signs are the same, too, unless
    the largest positive and the largest negative loading of a component differ by less than a fifth in magnitude. In
    this case the signs of scikit-learn depend on the last digits, and these do not
    (:func:`~patchprism.prism.moments.fix_signs`). The memory is that of a few D × D matrices. The disadvantage: if
    the rows are float32, directions whose variance is below about 1e-7 of the largest one are lost in rounding.

    Parameters
    ----------
    n_components : int, default=None
        Number of components to keep. ``None`` keeps all that the rows seen so far can have, ``min(n_samples_seen_,
        n_features_in_)``. Unlike in scikit-learn, the number may be larger than the number of rows seen so far,
        because more rows can follow. It must not be larger than the width.
    whiten : bool, default=False
        Divide each transformed component by its standard deviation.

    Attributes
    ----------
    moments_ : Moments
        Sums over all rows seen so far.
    components_ : ndarray, shape (n_components_, n_features_in_), float64
        Unit rows, largest variance first. The loading with the largest magnitude is positive, except in near ties.
    explained_variance_, explained_variance_ratio_, singular_values_ : ndarray, shape (n_components_,), float64
    mean_ : ndarray, shape (n_features_in_,), float64
    n_components_, n_features_in_, n_samples_seen_ : int

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.random.default_rng(0).normal(size=(100, 5)) * [5, 4, 3, 2, 1]
    >>> left = StreamingPCA(n_components=3).partial_fit(rows[:70])
    >>> right = StreamingPCA(n_components=3).partial_fit(rows[70:])
    >>> whole = StreamingPCA(n_components=3).fit(rows)
    >>> bool(np.allclose(left.merge(right).components_, whole.components_))
    True
    """

    n_features_in_: int
    moments_: Moments

    def __init__(self, n_components: int | None = None, *, whiten: bool = False) -> None:
        self.n_components = n_components
        self.whiten = whiten

    def fit(self, X: Any, y: None = None) -> Self:
        """Forget all earlier rows and fit ``X``.

        Parameters
        ----------
        X : ndarray or torch.Tensor, shape (n, D), any real dtype, any device
        y : None
            Ignored; present for scikit-learn's pipelines.

        Raises
        ------
        ValueError
            If ``X`` is empty, not two-dimensional, or has NaN or infinity (a ``FeaturesError``, which is a
            ``ValueError``).
        """
        return self._add(X, reset=True)

    def partial_fit(self, X: Any, y: None = None) -> Self:
        """Add the rows of ``X`` to those seen before; parameters and errors are those of :meth:`fit`."""
        return self._add(X, reset=not hasattr(self, "moments_"))

    def merge(self, other: StreamingPCA) -> Self:
        """Add all rows that another fitted StreamingPCA has seen; ``other`` does not change.

        Raises
        ------
        OptionError
            If ``other`` is not a StreamingPCA.
        FeaturesError
            If its rows have another width.
        """
        if not isinstance(other, StreamingPCA):
            raise OptionError(f"merge takes a StreamingPCA, got {type(other).__name__}")
        check_is_fitted(other)
        if not hasattr(self, "moments_"):
            self.moments_ = Moments(other.n_features_in_)
            self.n_features_in_ = other.n_features_in_
        self.moments_.merge(other.moments_)
        return self

    def transform(self, X: Any) -> Any:
        """Coordinates along the components.

        Parameters
        ----------
        X : ndarray or torch.Tensor, shape (n, D)

        Returns
        -------
        ndarray or torch.Tensor, shape (n, n_components_)
            Same type and device as ``X``; float64 for float64 rows, and float32 otherwise.
        """
        check_is_fitted(self)
        rows = self._check(X, reset=False, finite=True)
        if isinstance(rows, np.ndarray):
            out = project(rows, self.mean_, self.components_)
            out = out / self._deviations() if self.whiten else out
            return out if rows.dtype == np.float64 else out.astype(np.float32)
        return self._transform_tensor(rows)

    def inverse_transform(self, X: Any) -> NDArray[np.floating[Any]]:
        """Rows from coordinates: (n, n_components_) -> (n, D)."""
        check_is_fitted(self)
        scores = np.asarray(X)
        scale = self._deviations() if self.whiten else 1.0
        rows: NDArray[np.floating[Any]] = (scores * scale) @ self.components_ + self.mean_
        return rows.astype(scores.dtype) if scores.dtype == np.float32 else rows

    @property
    def components_(self) -> NDArray[np.float64]:
        return self._principal().components

    @property
    def explained_variance_(self) -> NDArray[np.float64]:
        return self._principal().variance

    @property
    def explained_variance_ratio_(self) -> NDArray[np.float64]:
        principal = self._principal()
        return principal.variance / (principal.total_variance or math.inf)

    @property
    def singular_values_(self) -> NDArray[np.float64]:
        return np.sqrt(self._principal().variance * max(self.n_samples_seen_ - 1, 1))

    @property
    def mean_(self) -> NDArray[np.float64]:
        return self._fitted().mean

    @property
    def n_samples_seen_(self) -> int:
        return self._fitted().count

    @property
    def n_components_(self) -> int:
        width = len(self._fitted().mean)
        if self.n_components is None:
            return min(self.n_samples_seen_, width)
        return int(checks.integer("n_components", self.n_components, low=1, high=width))

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _fitted(self) -> Moments:
        if "moments_" not in vars(self):  # a plain AttributeError is what hasattr() and check_is_fitted need
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return self.moments_

    def _principal(self) -> Principal:
        return self._fitted().principal(self.n_components_)

    def _deviations(self) -> NDArray[np.float64]:
        variance = self.explained_variance_
        # Along a component without variance, all coordinates are zero and need not be scaled.
        return np.where(variance > 0, np.sqrt(variance), 1.0)

    def _add(self, X: Any, *, reset: bool) -> Self:
        rows = self._check(X, reset=reset)
        width = rows.shape[1]
        if self.n_components is not None:
            checks.integer("n_components", self.n_components, low=1, high=width)
        checks.flag("whiten", self.whiten)
        moments = Moments(width) if reset else self.moments_
        try:
            moments.update(rows)
        except FeaturesError as error:
            # This wording is scikit-learn's, because its tests and many callers look for it.
            raise FeaturesError(f"Input X contains NaN or infinity: {error}") from error
        self.moments_ = moments
        return self

    def _check(self, X: Any, *, reset: bool, finite: bool = False) -> Any:
        if _is_tensor(X):
            # NumPy cannot read the rows of a sparse tensor, and a meta tensor has no values.
            plain = str(X.layout) == "torch.strided" and not X.is_meta and not X.is_quantized
            if X.ndim != 2 or not len(X) or X.is_complex() or not plain:
                kind = "" if plain else f", {'meta' if X.is_meta else X.layout}"
                raise FeaturesError(
                    f"expected real rows (n, D) with n > 0, got shape {tuple(X.shape)}, {X.dtype}{kind}"
                )
            if reset:
                self.n_features_in_ = X.shape[1]
                self.__dict__.pop("feature_names_in_", None)
            elif X.shape[1] != self.n_features_in_:
                raise FeaturesError(
                    f"X has {X.shape[1]} features, but StreamingPCA is fitted on {self.n_features_in_}"
                )
            return X
        # In a fit, Moments finds NaN without additional work.
        return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=finite)

    def _transform_tensor(self, rows: Any) -> Any:
        import torch

        dtype = rows.dtype if rows.dtype in (torch.float32, torch.float64) else torch.float32
        with own_settings():
            rows = rows.detach().to(dtype)
            if not bool(torch.isfinite(rows).all()):
                raise FeaturesError("Input X contains NaN or infinity")
            mean = torch.from_numpy(self.mean_).to(rows.device, dtype)
            components = torch.from_numpy(self.components_).to(rows.device, dtype)
            out = (rows - mean) @ components.T
            return out / torch.from_numpy(self._deviations()).to(rows.device, dtype) if self.whiten else out


def _is_tensor(X: Any) -> bool:
    # Recognised by the module of its class, so that torch need not be imported.
    return type(X).__module__.partition(".")[0] == "torch"
