"""PatchFeatures: the patch tokens of many photos, whose grids may differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from patchprism import checks
from patchprism.errors import FeaturesError
from patchprism.words import counted

Tokens = NDArray[np.floating[Any]]


class PatchFeatures(Sequence[Tokens]):
    """Patch tokens of many photos, held in memory.

    A sequence of arrays ``(h, w, D)``, one a photo. Everything that reads features asks for no more than
    this class's public face, so a store on disk can stand in for it.

    Parameters
    ----------
    tokens : sequence of array-like, each (h, w, D), or one array (B, h, w, D)
        NumPy arrays or torch tensors on any device, of any floating dtype; kept in their own precision
        where NumPy has it, else as float32.
    names : sequence of str, optional
        One a photo, for errors and pictures; ``photo-1``, ``photo-2``, ... by default.

    Raises
    ------
    FeaturesError
        If there is no photo, a grid is empty, or the widths differ.

    Examples
    --------
    >>> features = PatchFeatures([np.zeros((2, 3, 8)), np.ones((4, 4, 8))])
    >>> len(features), features.width, features.grids, features.n_patches
    (2, 8, [(2, 3), (4, 4)], 22)
    """

    def __init__(self, tokens: Sequence[Any], names: Sequence[str] | None = None) -> None:
        self._tokens = _arrays(tokens)
        self.names = [f"photo-{i + 1}" for i in range(len(self._tokens))]
        if names is not None:
            self.names = list(checks.texts("names", names))
        if not self._tokens:
            raise FeaturesError("features need at least one photo, got none")
        if len(self.names) != len(self._tokens):
            raise FeaturesError(f"got {len(self.names)} names for the features of {len(self._tokens)} photos")
        for name, array in zip(self.names, self._tokens, strict=True):
            if array.ndim != 3 or 0 in array.shape:
                raise FeaturesError(f"{name}: features must be (h, w, D), got {array.shape}")
            if array.shape[2] != self.width:
                raise FeaturesError(
                    f"{name}: features have width {array.shape[2]}, those before {self.width}"
                )

    @property
    def width(self) -> int:
        """Length D of a patch token."""
        return int(self._tokens[0].shape[2])

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of patches, (h, w), a photo."""
        return [(array.shape[0], array.shape[1]) for array in self._tokens]

    @property
    def n_patches(self) -> int:
        """Patches of all photos together."""
        return sum(h * w for h, w in self.grids)

    def __len__(self) -> int:
        return len(self._tokens)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...

    @overload
    def __getitem__(self, index: slice) -> PatchFeatures: ...

    def __getitem__(self, index: int | slice) -> Tokens | PatchFeatures:
        if isinstance(index, slice):
            return PatchFeatures(self._tokens[index], self.names[index])
        return self._tokens[index]

    def __repr__(self) -> str:
        return f"PatchFeatures({counted(len(self), 'photo')}, {self.n_patches} patches, width {self.width})"


def as_features(features: Any) -> PatchFeatures:
    """Features as :class:`PatchFeatures`: unchanged, or made of a sequence of ``(h, w, D)`` arrays."""
    return features if isinstance(features, PatchFeatures) else PatchFeatures(features)


def _arrays(tokens: Any) -> list[Tokens]:
    try:
        return [_as_array(each) for each in tokens]
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:  # torch has the last two
        reason = " ".join(str(error).split())[:200]
        raise FeaturesError(
            f"features must be arrays of real numbers (h, w, D), one a photo: {reason}"
        ) from error


def _as_array(tokens: Any) -> Tokens:
    if type(tokens).__module__.partition(".")[0] == "torch":
        tokens = tokens.detach().cpu()
        tokens = (tokens.float() if str(tokens.dtype) == "torch.bfloat16" else tokens).numpy()
    array = np.asarray(tokens)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"got {array.dtype}")
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float32)
