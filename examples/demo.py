"""The main job on photos from scikit-image (CC0), with the embedded ViT: needs no download and no GPU.

Run it with ``make demo`` or ``python examples/demo.py OUT``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import skimage

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def main() -> int:
    """Colour the photos and write to the folder given on the command line; returns the exit code of patchprism."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo")
    photos = out / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        shutil.copyfile(Path(skimage.__file__).parent / "data" / name, photos / name)
    command = ["render", str(photos), "--out", str(out), "--model", "focus_vits14", "--overlay", "0.6"]
    print(f"$ patchprism {' '.join(command)}\n", flush=True)
    code = subprocess.run([sys.executable, "-m", "patchprism", *command], check=False).returncode
    if code == 0:
        print(
            f"\nLook at {out}/results.png: photos on the left, their colours on the right.\n"
            f"If the foreground is wrong, look at {out}/histogram.png: it shows the scores and the threshold.\n\n"
            "Try next, on your own photos:\n"
            "  .venv/bin/patchprism render PHOTO... --out out/mine --model focus_vits14         # the demo's network\n"
            "  .venv/bin/patchprism render PHOTO... --out out/mine --model efficientnet_lite2   # small and fast\n"
            "  .venv/bin/patchprism render PHOTO... --out out/mine        # DINOv2 ViT-S/14, downloads 88 MB once\n"
            "  .venv/bin/patchprism models                                # lists all models"
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
