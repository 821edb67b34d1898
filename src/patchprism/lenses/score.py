"""The score: the first principal component of all patches, before any threshold cuts it."""

from __future__ import annotations

from functools import partial

from patchprism.lenses.base import Scene, rounded
from patchprism.lenses.sheet import Bar
from patchprism.pictures.outputs import LensResult


def look(scene: Scene) -> LensResult:
    """Scores of all photos on one scale from 0 to 1; see docs/lenses/score.md."""
    view = scene.view
    prism, scores = view.prism, view.scores
    cut = (
        "all patches kept" if prism.side_ == "none" else f"foreground is {prism.side_} {prism.threshold_:.3g}"
    )
    share = float(prism.scene_ratio_[0])

    figure = partial(
        scene.heat_sheet,
        scores,
        0.0,
        1.0,
        title="score: first principal component of all patches",
        notes=[f"It explains {share:.0%} of the variance; {cut}. Its sign is arbitrary."],
        bar=Bar("0", "1"),
    )
    return LensResult(
        name="score",
        report={
            "explained_variance_ratio": rounded(share),
            "range": [float(v) for v in prism.score_range_],
            "photos": [
                {"min": rounded(s.min()), "mean": rounded(s.mean()), "max": rounded(s.max())} for s in scores
            ],
        },
        figures={"score": figure},
        pictures=[{"score": partial(scene.draw_heat, i, score, 0.0, 1.0)} for i, score in enumerate(scores)],
        arrays=[{"score": score} for score in scores],
    )
