"""Make the pictures of README and documentation from scikit-image's CC0 photos.

    python docs/make_pictures.py [MODEL]        # focus_vits14 by default; writes docs/images

The explorer's picture needs Playwright and Chromium; without them it stays as it is.
Look at them before you commit them, and at the sentences beside them that say what can be seen.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

IMAGES = Path(__file__).parent / "images"
LENSES = ("pca", "score", "norm", "similarity", "matches", "clusters", "attention")
# The bridge of the cat's nose.
POINT = "chelsea:265,120"
# The photos of the explorer's picture, in the page's order.
SHOWN = ("astronaut", "chelsea", "coffee", "rocket")


def render(*words: object) -> None:
    """Run a command of patchprism."""
    subprocess.run([sys.executable, "-m", "patchprism", *map(str, words)], check=True)


def photos_in(folder: Path) -> tuple[Path, Path]:
    """Folders with four unlike photos, and with two of one cat: the second mirrored, turned and cropped."""
    four, cats = folder / "four", folder / "cats"
    for each in (four, cats):
        each.mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).save(four / f"{name}.png")
    cat = Image.fromarray(skimage.data.chelsea())
    cat.save(cats / "chelsea.png")
    turned = cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(12, Image.Resampling.BICUBIC)
    turned.crop((70, 45, 390, 255)).save(cats / "chelsea-turned.png")
    return four, cats


def keep(picture: Image.Image, name: str, width: int) -> None:
    """Save a picture at most so wide."""
    picture = picture.convert("RGB")
    if picture.width > width:
        size = (width, round(picture.height * width / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    picture.save(IMAGES / name, quality=88, optimize=True)


def in_rows(rows: list[list[Image.Image]], width: int, gap: int) -> Image.Image:
    """Pictures in rows of equal width."""
    made = []
    for row in rows:
        ratio = sum(each.width / each.height for each in row)
        height = round((width - gap * (len(row) - 1)) / ratio)
        line = Image.new("RGB", (width, height), "white")
        left = 0
        for each in row:
            resized = each.convert("RGB").resize((round(each.width * height / each.height), height))
            line.paste(resized, (left, 0))
            left += resized.width + gap
        made.append(line)
    whole = Image.new("RGB", (width, sum(each.height + gap for each in made) - gap), "white")
    top = 0
    for line in made:
        whole.paste(line, (0, top))
        top += line.height + gap
    return whole


def follow(folder: Path, model: str) -> Image.Image:
    """The last of six frames that wander over the cat, beside its similarity to a patch of an eye in the first."""
    folder.mkdir()
    cat = Image.fromarray(skimage.data.chelsea())
    for i in range(6):
        cat.crop((8 * i, 0, 400 + 8 * i, 300)).save(folder / f"{i}.png")
    words = ["--lens", "similarity", "--at", "0:186,118", "--upsample", "guided", "--model", model]
    render("video", folder, "-o", folder / "followed", *words)
    return Image.open(max((folder / "followed").glob("*.png")))


def main(model: str = "focus_vits14") -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        four, cats = photos_in(folder)
        render("render", four, "-o", folder / "demo", "--model", model)
        pairs = {
            name: [Image.open(four / f"{name}.png"), Image.open(folder / "demo" / f"{name}.pca.png")]
            for name in ("astronaut", "coffee", "chelsea", "rocket")
        }
        rows = [pairs["astronaut"] + pairs["coffee"], pairs["chelsea"] + pairs["rocket"]]
        keep(in_rows(rows, 1600, 8), "demo.jpg", 1600)

        words = [word for lens in LENSES for word in ("--lens", lens)]
        words += ["--at", POINT, "--match-lines", "25", "--clusters", "5"]
        render("render", cats, "-o", folder / "gallery", "--model", model, *words)
        # The norm is of tokens without the final norm, which makes all of one length.
        render("render", cats, "-o", folder / "raw", "--model", model, "--no-final-norm", "--lens", "norm")
        for lens in LENSES:
            name = {"pca": "results", "matches": "matches-1-2"}.get(lens, lens)
            path = folder / ("raw" if lens == "norm" else "gallery") / f"{name}.png"
            keep(Image.open(path), f"lens-{lens}.jpg", 900)

        render("compare", cats, "-o", folder / "compare", "--model", model, "--layer", "4,7,9")
        keep(Image.open(folder / "compare" / "compare.png"), "compare-turned.jpg", 1000)
        keep(Image.open(folder / "compare" / "compare-as-fitted.png"), "compare-as-fitted.jpg", 1000)

        shown = []
        cat = cats / "chelsea.png"
        for at, options in enumerate(([], ["--space", "oklab"], ["--upsample", "guided"])):
            out = folder / f"space-{at}"
            render("render", cat, "-o", out, "--model", model, *options)
            shown.append(Image.open(out / "chelsea.pca.png"))
        keep(in_rows([shown], 1100, 10), "space-upsample.jpg", 1100)
        keep(follow(folder / "clip", model), "video-similarity.jpg", 1100)
        assert all(np.asarray(Image.open(path)).std() > 5 for path in IMAGES.glob("*.jpg"))


if __name__ == "__main__":
    main(*sys.argv[1:])
