"""Remake the pictures of docs/figures.md from scikit-image's CC0 photo of a cat.

python docs/make_figures.py [MODEL]        # focus_vits14 by default; those of the gallery: docs/make_pictures.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from skimage import data

import patchprism
from patchprism.pictures.options import PictureOptions

if TYPE_CHECKING:
    from patchprism.pictures.drawing import Drawing

IMAGES = Path(__file__).parent / "images"
# Pixels across: pictures of a page, not of a paper.
WIDTH = 900

# The figure, and the options that its picture shows, by the picture's name.
FIGURES: dict[str, tuple[str, dict[str, object]]] = {
    "figure-default": ("results", {}),
    "figure-fg-mask": ("fg_mask", {}),
    "figure-raw": ("results_raw", {}),
    "figure-above": ("results", {"arrange": "above"}),
    "figure-square": ("results", {"arrange": "above", "panels": "square", "labels": ("none",)}),
    "figure-columns": ("results", {"columns": 4, "arrange": "above"}),
    "figure-labels": ("results", {"labels": ("a) whole", "b) mirrored", "c) close", "d) upright")}),
    "figure-width": ("results", {"width": "82mm", "dpi": 200, "arrange": "above", "panels": "square"}),
    "figure-white": ("results", {"background": "white"}),
    "figure-grey": ("results", {"background": "grey"}),
    "figure-photo": ("results", {"background": "photo"}),
    "figure-outline": ("results", {"outline": True}),
    "figure-transparent": ("results", {"background": "transparent"}),
}


def photos(folder: Path) -> list[Path]:
    """One cat, whole, mirrored, close and upright."""
    cat = data.chelsea()
    parts = {
        "cat.png": cat,
        "cat-mirrored.png": cat[:, ::-1][20:280, 60:400],
        "cat-close.png": cat[10:250, 100:380],
        "cat-upright.png": cat[:, 120:330],
    }
    for name, part in parts.items():
        Image.fromarray(np.ascontiguousarray(part)).save(folder / name)
    return [folder / name for name in parts]


def keep(drawing: Drawing, options: PictureOptions, path: Path) -> None:
    """Draw a figure as it is, and keep it as small as a page shows it; on checks where nothing is."""
    whole = path.with_suffix(".png")
    drawing.save(whole, options)
    picture = Image.open(whole)
    if picture.mode == "RGBA":
        rows, columns = np.indices((picture.height, picture.width)) // 36
        checks = np.where((rows + columns) % 2, 204, 238).astype(np.uint8)
        ground = Image.fromarray(checks).convert("RGBA")
        ground.alpha_composite(picture)
        picture = ground.convert("RGB")
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    whole.unlink()
    picture.save(path, quality=88, subsampling=0)
    print(path.name, picture.size, (path.stat().st_size + 512) // 1024, "kB")


def main(model: str = "focus_vits14") -> None:
    """Draw all of them."""
    with tempfile.TemporaryDirectory() as folder:
        view = patchprism.visualize(photos(Path(folder)), model=model)
        for name, (figure, said) in FIGURES.items():
            options = PictureOptions(**said)  # type: ignore[arg-type]
            keep(view.figures(options)[figure], options, IMAGES / f"{name}.jpg")


if __name__ == "__main__":
    main(*sys.argv[1:])
