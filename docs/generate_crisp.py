"""Remake the pictures of docs/crisp.md: ``python docs/generate_crisp.py --weights vits14.pth``.

The photos are scikit-image's, in the public domain or CC0.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from skimage import data

import patchprism

if TYPE_CHECKING:
    from patchprism.backbones import Backbone

IMAGES = Path(__file__).resolve().parent / "images"
LAYER = 8
# Okabe and Ito's, which are told apart with any colour vision.
PALETTE = np.array(
    [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0)], np.uint8
)


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="a ViT-S/14 checkpoint in DINOv2's layout")
    backbone = patchprism.load_backbone("dinov2_vits14", weights=parser.parse_args().weights)
    people = [data.astronaut(), data.chelsea(), data.coffee()]
    view = patchprism.visualize(people, backbone=backbone, layer=LAYER)
    ways = ("nearest", "bilinear", "guided")
    side_by_side(
        "crisp-upsample", [[view.picture(i, overlay_alpha=0.7, upsample=way) for way in ways] for i in (0, 2)]
    )
    fine = patchprism.visualize(people, backbone=backbone, layer=LAYER, stride=7)
    large = patchprism.visualize(people, backbone=backbone, layer=LAYER, size=896)
    side_by_side(
        "crisp-stride", [[each.picture(i, basis="all") for each in (view, fine, large)] for i in (0, 1)]
    )
    refined = patchprism.visualize(people, backbone=backbone, layer=LAYER, refine=4)
    side_by_side("crisp-refine", [[clusters(each, i) for each in (view, refined)] for i in (0, 2)])
    tiles(backbone)


def clusters(view: patchprism.Visualization, index: int) -> np.ndarray:
    """Which of six clusters each patch belongs to."""
    labels = view.clusters(6).arrays[index]["labels"]
    height, width = view.sizes[index]
    return np.asarray(Image.fromarray(PALETTE[labels]).resize((width, height), Image.Resampling.NEAREST))


def tiles(backbone: Backbone) -> None:
    """A photo of 1,411 pixels whole, and in windows with and without the pass over the whole."""
    from patchprism.features import tiles as module

    photo = data.retina()
    prism, pictures = None, []
    kept = module._take_coarse
    for options, take in (({}, kept), ({"tile": 448}, kept), ({"tile": 448}, lambda tokens, whole: None)):
        module._take_coarse = take
        view = patchprism.visualize(
            [photo],
            backbone=backbone,
            layer=LAYER,
            size=1344,
            prism=prism,
            force=prism is not None,
            **options,
        )
        prism = prism or view.prism
        pictures.append(view.picture(0, basis="all"))
    module._take_coarse = kept
    side_by_side("crisp-tile", [pictures])


def side_by_side(name: str, rows: list[list[np.ndarray]], width: int = 420) -> None:
    """Write pictures in rows and columns."""
    made = []
    for row in rows:
        height = round(width * row[0].shape[0] / row[0].shape[1])
        panels = [
            np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.LANCZOS))
            for each in row
        ]
        gap = np.full((height, 8, 3), 255, np.uint8)
        made.append(np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1))
    gap = np.full((8, made[0].shape[1], 3), 255, np.uint8)
    sheet = np.concatenate([part for row in made for part in (row, gap)][:-1])
    Image.fromarray(sheet).save(IMAGES / f"{name}.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
