"""Colours of frames: apply a prism quickly, and remove flicker where nothing moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import PrismError
from patchprism.features.patch_features import check_tokens
from patchprism.prism.axes import on_grid, split_at
from patchprism.prism.head import decisions_from, foreground_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.prism.estimator import Prism

# Differences well below this count as noise, those well above it as motion. Sensor noise of 1/255 moves
# efficientnet_lite2's colours by up to 14/255 from their mean (docs/video.md has the measurement).
MOTION = 32 / 255
# Share of a small difference, such as a change of light, that each frame follows: in 14 frames, half of it.
DRIFT = 0.05
# How many values of tokens are processed at a time. In float64 they stay in the cache, and OpenBLAS uses only one
# thread for such a small product. A frame at 448 takes 0.3 ms of processor time; in one product, whose two threads
# wait for each other, it takes 4.8 ms.
_PIECE = 40_000
# How far beyond the threshold a patch's score must be before the patch changes sides.
MARGIN = 0.02


@dataclass(frozen=True, eq=False)
class PatchColors:
    """Colours, foreground and score of the patches of one frame.

    Attributes
    ----------
    colors : ndarray, shape (h, w, 3), float32, in [0, 1]
        Colours of all patches, including the background.
    foreground : ndarray, shape (h, w), bool
    score : ndarray, shape (h, w), float32, in [0, 1]
    """

    colors: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    score: NDArray[np.float32]

    @property
    def rgb(self) -> NDArray[np.float32]:
        """Colours with the background at 0, (h, w, 3)."""
        return np.where(self.foreground[..., None], self.colors, np.float32(0))


def all_foreground(colors: NDArray[np.uint8]) -> PatchColors:
    """Colours of all patches, (h, w, 3) uint8, none of which is background."""
    shape = colors.shape[:2]
    return PatchColors(
        colors.astype(np.float32) / np.float32(255), np.ones(shape, bool), np.ones(shape, np.float32)
    )


class FrameColors:
    """Applies a prism to one frame after another.

    The results are those of :meth:`Prism.split <patchprism.Prism.split>`, up to float rounding. But the tokens are
    read once, for the four components that a frame needs, instead of twice, for sixteen.

    Parameters
    ----------
    prism : Prism
        Fitted.
    """

    def __init__(self, prism: Prism) -> None:
        if not hasattr(prism, "object_range_"):
            raise PrismError("this prism is not fitted yet: call fit, or load one")
        self.prism = prism
        self.wanted = sorted({abs(c) - 1 for c in prism.components})
        at = prism.foreground_component - 1
        scene, in_object = prism.scene_components_[at : at + 1], prism.object_components_[self.wanted]
        self._scene_variance = prism.scene_variance_[at : at + 1]
        # The first columns give the score: a scene component, the foreground direction, or a head's classes.
        first = scene if prism.direction_ is None else prism.direction_[np.newaxis]
        first = first if prism.head_ is None else prism.head_.weights_
        self._n_first = len(first)
        self._columns = np.ascontiguousarray(np.concatenate([first, in_object]).T)
        # The coordinates of the means are subtracted from the products; subtracting the mean from every token would
        # cost as much as the products.
        self._scene_shift = prism.scene_mean_ @ scene.T
        self._object_shift = prism.object_mean_ @ in_object.T

    def split(self, tokens: Tokens, *, name: str = "frame") -> PatchColors:
        """Colours, foreground and score of a frame's tokens, (h, w, D).

        Raises
        ------
        FeaturesError
            If a token is not finite.
        PrismError
            If the prism is fitted on another width.
        """
        prism, (h, w, width) = self.prism, tokens.shape
        if width != len(prism.scene_mean_):
            raise PrismError(
                f"{name}: this prism is fitted on features of width {len(prism.scene_mean_)}, got {width}"
            )
        check_tokens(tokens, name)
        rows = tokens.reshape(-1, width)
        values = np.empty((len(rows), self._columns.shape[1]))
        squares = np.zeros(len(rows))
        step = max(1, _PIECE // width)
        for start in range(0, len(rows), step):
            piece = slice(start, start + step)
            wide = rows[piece].astype(np.float64)
            np.matmul(wide, self._columns, out=values[piece])
            if prism.direction_ is not None or prism.head_ is not None:
                np.einsum("nd,nd->n", wide, wide, out=squares[piece])
        if not np.isfinite(values).all():
            raise PrismError("this prism cannot be used: its means or components are too large")
        first = values[:, : self._n_first]
        if prism.head_ is not None:
            along = foreground_score(decisions_from(first, squares, prism.head_.bias_)).astype(np.float64)
        elif prism.direction_ is None:
            along = on_grid(first - self._scene_shift, self._scene_variance)[:, 0]
        else:
            along = prism.scorer.along_direction(values[:, 0], squares)
        score = prism.scorer.scaled(along.reshape(h, w))
        components = np.zeros((h * w, len(prism.object_components_)))
        components[:, self.wanted] = on_grid(
            values[:, self._n_first :] - self._object_shift, prism.object_variance_[self.wanted]
        )
        return PatchColors(
            colors=prism.colors_of(components).reshape(h, w, 3),
            foreground=split_at(score, prism.threshold_, prism.side_),
            score=score,
        )


class Steady:
    """Removes flicker from patches that do not move.

    In each frame, a patch moves towards its new values by ``share * difference``. ``share`` grows from ``DRIFT`` for
    small differences to 1 for differences beyond ``MOTION``; the largest difference among the three colours and the
    score of the patch decides. A patch changes sides only if its score, steadied in the same way, is ``MARGIN``
    beyond the threshold. The first frame is shown as it is.

    Parameters
    ----------
    threshold : float
        NaN if all patches are kept.
    side : {"above", "below", "none"}
    """

    def __init__(self, threshold: float, side: str) -> None:
        self.threshold, self.side = threshold, side
        self._shown: NDArray[np.float32] | None = None  # (h, w, 4): colours and score
        self._foreground: NDArray[np.bool_] | None = None

    def __call__(self, seen: PatchColors) -> PatchColors:
        """The steadied frame."""
        now = np.concatenate([seen.colors, seen.score[..., None]], axis=-1)
        if self._shown is None or self._foreground is None or self._shown.shape != now.shape:
            self._shown, self._foreground = now, seen.foreground
            return seen
        difference = now - self._shown
        far = np.abs(difference).max(axis=-1, keepdims=True) / np.float32(MOTION)
        fourth = np.square(np.square(far))
        share = np.maximum(fourth / (1 + fourth), np.float32(DRIFT))
        self._shown = self._shown + share * difference
        score = self._shown[..., 3]
        if self.side == "none":
            foreground = seen.foreground
        else:
            beyond = score - self.threshold if self.side == "above" else self.threshold - score
            foreground = np.where(np.abs(beyond) > MARGIN, beyond > 0, self._foreground)
        self._foreground = foreground
        return PatchColors(self._shown[..., :3], foreground, score)
