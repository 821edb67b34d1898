"""Hints about what users should know before they rely on the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from patchprism.prism.estimator import Prism


# Lengths of the difference between the mean unit tokens of foreground and background: brick, grass and gravel give
# 0.24 to 0.45 with ViT-S/14 (blocks 8 and 11), and their patches have a mean cosine of 0.53 and more; 22 photos of
# objects give a contrast of 0.64 and more. Networks whose tokens are centred per photo (efficientnet_lite2) have a
# mean cosine of 0 and contrasts of 0.5 to 0.8 for both kinds of photos, so they get no hint.
FAINT_CONTRAST = 0.5
LIKE_PATCHES = 0.3


# Border ratio from which the foreground runs along the border, and agreement below which a photo is named.
FULL_BORDER = 0.7
LOW_AGREEMENT = 0.6


# A photo is suspicious if its foreground or its background is smaller than this share.
EXTREME_SHARE = 0.05


def hints_about(
    shares: NDArray[np.floating[Any]],
    prism: Prism,
    *,
    fitted_here: bool,
    plain: Sequence[str] = (),
    photos: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Hints about what to know before you rely on the pictures, in whole sentences.

    Parameters
    ----------
    shares : ndarray, shape (n,)
        For each photo, the share of its patches that are foreground.
    fitted_here : bool
        Whether the prism was fitted on these photos.
    plain : sequence of str
        Photos of one colour, or of noise.
    photos : sequence of mapping
        ``photo``, the name, and the numbers of :meth:`Visualization.doubts`.
    """
    if prism.side_ == "none":  # no object was looked for
        return []
    hints = _about_plain(plain)
    if prism.method_ == "object":
        return hints + _about_objects([each for each in photos if each["photo"] not in plain])
    if prism.method_ == "mask":
        return hints + _about_masks([each for each in photos if each["photo"] not in plain])
    extreme = int(np.count_nonzero((shares < EXTREME_SHARE) | (shares > 1 - EXTREME_SHARE)))
    if len(shares) < 2 or 2 * extreme < len(shares):
        return hints + (prism.hints() if fitted_here else [])
    # If the two sides are different photos, neither side is the object.
    return [
        f"in {extreme} of {len(shares)} photos nearly all patches are foreground, or nearly none: "
        "this component separates photos from each other, not objects from their background; try "
        "foreground='object', colour photos of one subject at a time, or keep all patches with "
        "foreground='none'" + "".join(f"; {hint}" for hint in hints)
    ]


def _named(found: Sequence[Mapping[str, Any]]) -> str:
    """The first photos by their names, and how many more there are."""
    first = [Path(each["photo"]).name for each in found[:3]]
    last = f"{len(found) - 3:,} more" if len(found) > 3 else first.pop()
    return f"{', '.join(first)} and {last}" if first else last


def _about_masks(photos: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which photos to check first if the foreground was learned from masks."""
    hints = []
    unlike = [each for each in photos if each.get("agreement", 1.0) < LOW_AGREEMENT]
    if unlike:
        unlike.sort(key=lambda each: float(each["agreement"]))
        hints.append(
            f"check the masks of {_named(unlike)} first: they differ from the foreground that all masks "
            f"together suggest (agreement {unlike[0]['agreement']:.2f})"
        )
    without = [each for each in photos if not each["foreground"] and not each.get("mask_given")]
    if without:
        hints.append(
            f"no foreground was found in {_named(without)}; if an object is there, also give a mask of "
            "such a photo"
        )
    return hints


def _about_objects(photos: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which photos to check first if the foreground is found by a direction."""
    hints = []
    faint = [
        each for each in photos if 0 < each["contrast"] < FAINT_CONTRAST and each["likeness"] > LIKE_PATCHES
    ]
    if faint:
        hints.append(
            f"no object stands out in {_named(faint)}: its foreground and background have similar features; "
            "foreground='none' keeps all patches"
        )
    filling = [each for each in photos if each not in faint and each["border_ratio"] >= FULL_BORDER]
    if filling:
        hints.append(
            f"the object seems to fill the border of {_named(filling)}, or the background was taken for the object; "
            "colour it together with other photos of such objects, or keep all patches with foreground='none'"
        )
    unsure = [
        each
        for each in photos
        if each not in faint and each not in filling and each.get("agreement", 1.0) < LOW_AGREEMENT
    ]
    if unsure:
        unsure.sort(key=lambda each: float(each["agreement"]))
        hints.append(
            f"check {_named(unsure)} first: the foreground differs from what this photo alone suggests "
            f"(agreement {unsure[0]['agreement']:.2f}); photos of the same subject agree better"
        )
    return hints


def _about_plain(plain: Sequence[str]) -> list[str]:
    if not plain:
        return []
    first = Path(plain[0]).name
    if len(plain) == 1:
        return [
            f"{first} shows only one colour or noise: no object was found in it, and its colours have no "
            "meaning"
        ]
    return [
        f"{len(plain):,} photos show only one colour or noise ({first} is the first): no object was "
        "found in them, and their colours have no meaning"
    ]
