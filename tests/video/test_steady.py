"""Colours and masks of a still scene do not tremble."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from video_clips import CAT

from patchprism.jobs.video.steady import MARGIN, FrameColors, PatchColors, Steady
from patchprism.photos.framing import Framing
from patchprism.prism.estimator import Prism


def test_still_scene_still_colors(backbone):
    """With noise of 1/255, colours change by less than 2/255 per frame, and by more without `steady`."""
    import torch

    rng = np.random.default_rng(0)
    record = backbone.record
    framing = Framing.preset(
        "default", size=224, patch_size=record.patch_size, mean=record.mean, std=record.std
    )
    tokens = []
    for _ in range(12):
        noisy = np.clip(np.rint(CAT + rng.normal(0, 1, CAT.shape)), 0, 255).astype(np.uint8)
        tokens.append(backbone.patch_tokens(framing.apply(noisy).pixels[None])[0].numpy())
    prism = Prism().fit(tokens)
    colors, steady = FrameColors(prism), Steady(prism.threshold_, prism.side_)
    bare = [colors.split(each) for each in tokens]
    shown = [steady(each) for each in bare]
    steps = [np.abs(b.rgb - a.rgb).max() * 255 for a, b in itertools.pairwise(shown)]
    assert max(steps) < 2
    assert max(np.abs(b.colors - a.colors).max() * 255 for a, b in itertools.pairwise(bare)) > 4
    # and the shown colours stay near the actual ones
    truth = np.mean([each.colors for each in bare], axis=0)
    assert np.abs(shown[-1].colors - truth).mean() * 255 < 4
    assert torch.is_inference_mode_enabled() is False


def still(value, score=0.9, grid=(2, 2)):
    return PatchColors(
        np.full((*grid, 3), value, np.float32), np.full(grid, score > 0.5), np.full(grid, score, np.float32)
    )


def test_motion_is_followed_immediately():
    steady = Steady(0.5, "above")
    first = steady(still(0.2))
    assert np.array_equal(first.colors, still(0.2).colors)
    assert steady(still(0.9)).colors.mean() > 0.89
    assert steady(still(0.1, score=0.1)).rgb.max() == 0  # it has become background


def test_small_changes_are_followed_gradually():
    steady = Steady(0.5, "above")
    steady(still(0.5))
    steps = [steady(still(0.52)).colors.mean() for _ in range(100)]
    assert np.diff([0.5, *steps]).max() < 2 / 255
    assert steps[-1] == pytest.approx(0.52, abs=1e-3)


@pytest.mark.parametrize("side", ["above", "below"])
def test_a_mask_does_not_flicker_at_the_threshold(side):
    sign = 1 if side == "above" else -1
    steady = Steady(0.5, side)

    def seen(score):
        mask = np.array([[score > 0.5 if side == "above" else score < 0.5]])
        return PatchColors(np.zeros((1, 1, 3), np.float32), mask, np.array([[score]], np.float32))

    assert steady(seen(0.5 + sign * 0.01)).foreground.all()
    for i in range(50):
        assert steady(seen(0.5 + (-1) ** i * 0.015)).foreground.all()
    for _ in range(200):
        last = steady(seen(0.5 - sign * (MARGIN + 0.01)))
    assert not last.foreground.any()
