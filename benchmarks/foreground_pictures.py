"""Draw the pictures of docs/foreground.md: the foreground of scikit-image's CC0 photos by method.

    python benchmarks/foreground_pictures.py --weights vits14.pth

writes ``foreground-vit.jpg`` and ``foreground-histogram.png`` (block 8 of the ViT-S/14), and
``foreground-efficientnet.jpg``, into docs/images. Each row shows a photo, its foreground with ``pca`` and ``object``
from this photo alone, and with ``object`` from all photos of objects in one job. The background is dimmed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import patchprism

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
OBJECTS = ("astronaut", "chelsea", "coffee", "camera", "rocket")
NOTHING = ("brick", "moon")
COLUMNS = ("photo", "pca, alone", "object, alone", "object, together")
WIDTH, GAP, HEAD = 168, 6, 20
PURPLE = np.array([90, 10, 80])


def main() -> None:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="a ViT-S/14 checkpoint in DINOv2's layout")
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    draw({"model": "efficientnet_lite2"}, options.out / "foreground-efficientnet.jpg")
    if options.weights:
        network = {"model": "dinov2_vits14", "weights": options.weights, "layer": 8}
        together = draw(network, options.out / "foreground-vit.jpg")
        histogram = Image.fromarray(together.figures()["histogram"]()).convert(
            "P", palette=Image.Palette.ADAPTIVE
        )
        histogram.save(options.out / "foreground-histogram.png", optimize=True)


def draw(network: dict, path: Path) -> patchprism.Visualization:
    """Draw the picture of all photos; returns the view of the photos with objects."""
    from skimage import data

    photos = {name: rgb(getattr(data, name)()) for name in (*OBJECTS, *NOTHING)}
    together = patchprism.visualize([photos[name] for name in OBJECTS], size=448, **network)
    rows = []
    for name, photo in photos.items():
        shown = [photo]
        for foreground in ("pca", "object"):
            view = patchprism.visualize([photo], size=448, foreground=foreground, **network)
            shown.append(dimmed(photo, view.foreground[0], view.crops[0]))
        if name in OBJECTS:
            i = OBJECTS.index(name)
            shown.append(dimmed(photo, together.foreground[i], together.crops[i]))
        rows.append([resized(each) for each in shown])
    sheet(rows).save(path, quality=82)
    return together


def rgb(photo: np.ndarray) -> np.ndarray:
    """A photo as (H, W, 3) uint8."""
    return np.asarray(Image.fromarray(photo).convert("RGB"))


def dimmed(photo: np.ndarray, mask: np.ndarray, crop: tuple[float, ...]) -> np.ndarray:
    """A photo with its background darkened to purple."""
    left, top, right, bottom = (round(edge) for edge in crop)
    patches = Image.fromarray(mask).resize((right - left, bottom - top), Image.Resampling.NEAREST)
    whole = Image.new("1", (photo.shape[1], photo.shape[0]))
    whole.paste(patches, (left, top))
    shown = np.asarray(whole, bool)[..., np.newaxis]
    return np.where(shown, photo, photo * 0.25 + PURPLE * 0.75).astype(np.uint8)


def resized(photo: np.ndarray) -> Image.Image:
    """A photo, resized to the width of a panel."""
    height = round(photo.shape[0] * WIDTH / photo.shape[1])
    return Image.fromarray(photo).resize((WIDTH, height), Image.Resampling.LANCZOS)


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Rows of panels, with the names of the columns above."""
    height = HEAD + sum(row[0].height + GAP for row in rows)
    page = Image.new("RGB", (len(COLUMNS) * (WIDTH + GAP) - GAP, height - GAP), "white")
    font = ImageFont.load_default(size=12)
    for column, title in enumerate(COLUMNS):
        ImageDraw.Draw(page).text((column * (WIDTH + GAP), 2), title, fill="black", font=font)
    top = HEAD
    for row in rows:
        for column, panel in enumerate(row):
            page.paste(panel, (column * (WIDTH + GAP), top))
        top += row[0].height + GAP
    return page


if __name__ == "__main__":
    main()
