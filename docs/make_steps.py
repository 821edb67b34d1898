"""Make the pictures of docs/how-it-works.md, one for each step, and that of docs/tutorials/masks.md.

    python docs/make_steps.py [MODEL]           # focus_vits14 by default; writes docs/images/step-*.jpg and
                                                # tutorial-clicks.jpg

The photos are scikit-image's, CC0 or in the public domain.

Look at them before you commit them, and at the sentences beside them that say what can be seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import skimage.data
from PIL import Image, ImageDraw

import patchprism

IMAGES = Path(__file__).parent / "images"
# Height of a panel and distance between panels, in pixels.
HEIGHT, GAP = 300, 8
# A photo that is dimmed keeps so much of its brightness.
DIMMED = 0.25
# Clicks on the background and on the object, (x, y), of the astronaut and of the rocket.
CLICKS = (
    ([(391, 446), (30, 151), (418, 151), (338, 98)], [(225, 100), (76, 380), (250, 330)]),
    ([(195, 258), (449, 250), (45, 250), (195, 395), (400, 80)], [(322, 170), (322, 250), (320, 340)]),
)


def main(model: str = "focus_vits14") -> None:
    """Colour the two photos, and draw what each step made."""
    photos = [skimage.data.astronaut(), skimage.data.chelsea()]
    backbone = patchprism.load_backbone(model)
    view = patchprism.visualize(photos, backbone=backbone)
    whole = patchprism.visualize(photos, backbone=backbone, foreground="none")
    each = range(len(photos))

    keep("step-framing", [with_grid(photos[i], view.scores[i].shape) for i in each])
    keep("step-scene", [whole.picture(i) for i in each])
    keep("step-score", [in_colors(view.scores[i], photos[i]) for i in each])
    keep("step-foreground", [dimmed(photos[i], view.foreground[i]) for i in each])
    keep("step-components", [in_grey(view.colors[1][..., k], photos[1]) for k in range(3)])
    keep("step-colors", [view.picture(i) for i in each])
    keep("step-pixels", [view.picture(1, upsample=way) for way in ("nearest", "bilinear", "guided")])
    clicked(backbone)


def clicked(backbone: patchprism.Backbone) -> None:
    """The picture of docs/tutorials/masks.md, with that page's clicks: automatic above, from clicks below."""
    photos = [skimage.data.astronaut(), skimage.data.rocket()]
    masks = [np.full(photo.shape[:2], -1) for photo in photos]
    for mask, points in zip(masks, CLICKS, strict=True):
        for label in (0, 1):
            for x, y in points[label]:
                mask[y, x] = label
    rows = []
    for given in (None, masks):
        view = patchprism.visualize(photos, backbone=backbone, masks=given)
        panels = [dimmed(photo, view.foreground[i]) for i, photo in enumerate(photos)]
        if given:
            panels = [dotted(panel, points) for panel, points in zip(panels, CLICKS, strict=True)]
        rows.append(panels)
    keep("tutorial-clicks", *rows)


def enlarged(values: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """One number or colour per patch, as large as the photo, each patch a rectangle."""
    height, width = photo.shape[:2]
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST))


def with_grid(photo: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """The photo with lines between its patches."""
    picture = Image.fromarray(photo).resize((photo.shape[1] * 2, photo.shape[0] * 2))
    draw = ImageDraw.Draw(picture)
    for row in range(1, grid[0]):
        draw.line(
            [(0, row * picture.height / grid[0]), (picture.width, row * picture.height / grid[0])], "white"
        )
    for column in range(1, grid[1]):
        left = column * picture.width / grid[1]
        draw.line([(left, 0), (left, picture.height)], "white")
    return np.asarray(picture)


def in_colors(score: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """A score from 0 (dark blue) to 1 (yellow)."""
    rgb = mpl.colormaps["viridis"](score)[..., :3]
    return enlarged(np.rint(rgb * 255).astype(np.uint8), photo)


def in_grey(component: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """One component from 0 (black) to 1 (white)."""
    grey = np.rint(component * 255).astype(np.uint8)
    return enlarged(np.repeat(grey[..., None], 3, axis=-1), photo)


def dimmed(photo: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The photo, dark where there is no foreground."""
    weight = np.where(enlarged(foreground.astype(np.uint8), photo), 1.0, DIMMED)
    return np.rint(photo * weight[..., None]).astype(np.uint8)


def dotted(picture: np.ndarray, points: tuple[list[tuple[int, int]], ...]) -> np.ndarray:
    """The picture with a red dot on each click on the background, and a green one on the object."""
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    for color, places in zip(((230, 60, 40), (60, 220, 60)), points, strict=True):
        for x, y in places:
            draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=color, outline="white", width=2)
    return np.asarray(drawn)


def keep(name: str, *rows: list[np.ndarray]) -> None:
    """Save rows of panels of one height side by side."""
    resized = [
        [
            Image.fromarray(panel).resize(
                (round(panel.shape[1] * HEIGHT / panel.shape[0]), HEIGHT), Image.Resampling.LANCZOS
            )
            for panel in panels
        ]
        for panels in rows
    ]
    width = max(sum(each.width + GAP for each in row) for row in resized) - GAP
    sheet = Image.new("RGB", (width, (HEIGHT + GAP) * len(rows) - GAP), "white")
    for number, row in enumerate(resized):
        left = 0
        for panel in row:
            sheet.paste(panel, (left, number * (HEIGHT + GAP)))
            left += panel.width + GAP
    sheet.save(IMAGES / f"{name}.jpg", quality=86, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
