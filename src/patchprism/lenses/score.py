"""The score: how much a patch looks like foreground, before the threshold is applied."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from patchprism.lenses.base import Lens, rounded
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.outputs import LensResult, PhotoLook
from patchprism.pictures.sheet import Bar, heat

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.pictures.sheet import Sheet
    from patchprism.prism.colors import PhotoColors


class Score(Lens):
    """Scores of all photos on one scale from 0 to 1; see docs/lenses/score.md."""

    name = "score"

    def look(self, row: PhotoRow, tokens: Tokens, part: PhotoColors, index: int) -> PhotoLook:
        """See :class:`Lens`."""
        score = part.score
        return PhotoLook(
            {"score": partial(self.scene.draw_heat, row, score, 0.0, 1.0)},
            {"score": score},
            {"min": rounded(score.min()), "mean": rounded(score.mean()), "max": rounded(score.max())},
        )

    @property
    def meaning(self) -> str:
        """See :class:`Lens`."""
        return "score, from 0 to 1"

    def paint(self, tokens: Tokens, score: NDArray[np.floating[Any]], pixels: Any) -> NDArray[np.uint8]:
        """See :class:`Lens`."""
        return heat(score, 0.0, 1.0)

    def result(self, entries: Sequence[Any]) -> LensResult:
        """See :class:`Lens`."""
        prism = self.scene.prism
        report = {
            "explained_variance_ratio": rounded(self._explained),
            "range": [float(v) for v in prism.score_range_],
            "photos": list(entries),
        }
        return LensResult(name=self.name, report=report, figures={"score": Drawing(self._figure)})

    @property
    def _explained(self) -> float:
        """Share of the variance that the component of the foreground explains."""
        prism = self.scene.prism
        number = prism.foreground_component
        return float(prism.scene_ratio_[number - 1]) if number <= len(prism.scene_ratio_) else 0.0

    def _figure(self) -> Sheet:
        prism = self.scene.prism
        cut = (
            "all patches are kept"
            if prism.side_ == "none"
            else f"foreground is {prism.side_} {prism.threshold_:.3g}"
        )
        if prism.method_ == "object":
            what = "It is the coordinate along the foreground direction."
        elif prism.method_ == "mask":
            what = "It is the head's probability that the patch is not background."
        else:
            number = prism.foreground_component
            what = (
                f"It is principal component {number} of all patches, which explains {self._explained:.0%} of their "
                "variance."
            )
        return self.sheet(
            [
                (row, heat(self.scene.part(index, row, tokens).score, 0.0, 1.0))
                for index, row, tokens in self.first()
            ],
            notes=[f"Score of each patch, from 0 to 1 over all photos; {cut}. {what}"],
            bars=(Bar("score", "0", "1"),),
        )
