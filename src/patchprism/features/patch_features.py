"""PatchFeatures: the patch tokens of many photos, whose grids may differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from patchprism.errors import FeaturesError
from patchprism.support import checks
from patchprism.support.words import counted

Tokens = NDArray[np.floating[Any]]

# Tokens of real networks are at most some thousands. Sums of squares of numbers up to this limit, over the patches of
# any job, stay within the range of float32 (3e38), which libraries that we call compute in.
LARGEST = 1e12


class PatchFeatures(Sequence[Tokens]):
    """Patch tokens of many photos, in memory.

    A sequence of arrays ``(h, w, D)``, one per photo. :class:`~patchprism.StoredFeatures` has the same methods and
    reads from disk.

    Parameters
    ----------
    tokens : sequence of array-like, each (h, w, D), or one array (B, h, w, D)
        NumPy arrays or torch tensors on any device, of any real dtype. float16, float32 and float64 are kept. Other
        dtypes become float32, or float64 if float32 would lose digits.
    names : sequence of str, optional
        One per photo, for errors and pictures; by default ``photo-1``, ``photo-2``, ...

    Attributes
    ----------
    origin, model : dict
        What the features depend on (model, weights, framing, layer, ...), and the record of the model. Empty for your
        own features; set by :func:`patchprism.extract` and feature stores.
    failures : list of dict
        Photos that could not be read and were left out, each with ``photo`` and ``reason``.

    Raises
    ------
    FeaturesError
        If there is no photo, a grid is empty, the widths differ, or a token is not a real number, not finite, or
        larger than 1e12. The error names the photo.

    Examples
    --------
    >>> features = PatchFeatures([np.zeros((2, 3, 8)), np.ones((4, 4, 8))])
    >>> len(features), features.width, features.grids, features.n_patches
    (2, 8, [(2, 3), (4, 4)], 22)
    """

    origin: dict[str, Any]
    model: dict[str, Any]
    failures: list[dict[str, str]]

    def __init__(self, tokens: Sequence[Any], names: Sequence[str] | None = None) -> None:
        try:
            given = list(tokens)
        except TypeError as error:
            raise FeaturesError(
                f"features must be a sequence of arrays (h, w, D), got {type(tokens).__name__}"
            ) from error
        self.names = (
            [f"photo-{i + 1}" for i in range(len(given))]
            if names is None
            else list(checks.texts("names", names))
        )
        self.origin, self.model, self.failures = {}, {}, []
        if not given:
            raise FeaturesError("features need at least one photo, got none")
        if len(self.names) != len(given):
            raise FeaturesError(f"got {len(self.names)} names for the features of {len(given)} photos")
        self._tokens = [as_tokens(each, name) for name, each in zip(self.names, given, strict=True)]
        for name, array in zip(self.names, self._tokens, strict=True):
            if array.ndim != 3 or 0 in array.shape:
                raise FeaturesError(f"{name}: features must be (h, w, D), got {array.shape}")
            if array.shape[2] != self.width:
                raise FeaturesError(
                    f"{name}: features have width {array.shape[2]}, those before {self.width}"
                )
            check_tokens(array, name)

    @property
    def width(self) -> int:
        """Length D of a patch token."""
        return int(self._tokens[0].shape[2])

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of patches, (h, w), of each photo."""
        return [(array.shape[0], array.shape[1]) for array in self._tokens]

    @property
    def n_patches(self) -> int:
        """Number of patches of all photos."""
        return sum(h * w for h, w in self.grids)

    def __len__(self) -> int:
        return len(self._tokens)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...

    @overload
    def __getitem__(self, index: slice) -> PatchFeatures: ...

    def __getitem__(self, index: int | slice) -> Tokens | PatchFeatures:
        if isinstance(index, slice):
            part = PatchFeatures(self._tokens[index], self.names[index])
            part.origin, part.model = self.origin, self.model
            return part
        return self._tokens[index]

    def __repr__(self) -> str:
        return f"PatchFeatures({counted(len(self), 'photo')}, {self.n_patches} patches, width {self.width})"


def as_features(features: Any) -> PatchFeatures:
    """Features as :class:`PatchFeatures`, made from a sequence of ``(h, w, D)`` arrays if they are not."""
    return features if isinstance(features, PatchFeatures) else PatchFeatures(features)


def as_tokens(tokens: Any, name: str = "features") -> Tokens:
    """An array or tensor of real numbers as float16, float32 or float64; its shape and values are not checked.

    Raises
    ------
    FeaturesError
        If it is not an array of real numbers.
    """
    try:
        if type(tokens).__module__.partition(".")[0] == "torch":
            tokens = tokens.detach().cpu()
            # NumPy has neither bfloat16 nor floats of eight bits.
            own = str(tokens.dtype) in ("torch.float16", "torch.float32", "torch.float64")
            tokens = (tokens.float() if tokens.is_floating_point() and not own else tokens).numpy()
        if isinstance(tokens, np.ma.MaskedArray):
            # A masked value becomes NaN and is refused; otherwise the number under the mask would be used.
            tokens = np.where(np.ma.getmaskarray(tokens), np.nan, tokens.data)
        array = np.asarray(tokens)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise FeaturesError(f"{name}: features cannot be read as an array of numbers ({error})") from error
    if array.dtype.kind not in "fiub":
        raise FeaturesError(f"{name}: features must be real numbers, got {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return array.astype(np.float32 if array.dtype.kind != "f" and array.dtype.itemsize <= 2 else np.float64)


def check_tokens(tokens: Tokens, name: str) -> None:
    """Refuse tokens that are not finite, or whose sums of squares could overflow. Call this before any computation.

    Parameters
    ----------
    tokens : ndarray, any shape, floating
    name : str
        Name of the photo, for the error.

    Raises
    ------
    FeaturesError
        If a value is NaN, infinite, or larger than ``LARGEST``.
    """
    if not tokens.size:
        return
    if tokens.dtype == np.float16:
        if np.isfinite(tokens).all():
            return
    # Comparisons with NaN are False.
    elif tokens.min() >= -LARGEST and tokens.max() <= LARGEST:
        return
    if np.isfinite(tokens).all():
        raise FeaturesError(
            f"{name}: features must lie between -{LARGEST:g} and {LARGEST:g}, got {_farthest(tokens):g}"
        )
    kind = "NaN" if np.isnan(tokens).any() else "infinity"
    raise FeaturesError(f"{name}: features must be finite, got {kind}")


def _farthest(tokens: Tokens) -> float:
    return float(max(tokens.min(), tokens.max(), key=abs))
