"""The main job, from shell to written pictures, compared with a plain script that does the same as the seed.

Four photos go through DINOv2 ViT-S/14 at 448 with the seed preset on the CPU, with random weights. Both run alternately
as complete processes; ratios of times are computed per pair of runs, and the arrays of both are compared.

    python benchmarks/main_job.py [PHOTO...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


def default_photos() -> list[str]:
    """The seed's four dogs if they are beside the checkout, otherwise four of scikit-image's photos."""
    dogs = sorted((HERE.parent.parent / "shared" / "dogs").glob("*.jpg"))
    if dogs:
        return [str(dog) for dog in dogs]
    import skimage

    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    return [str(Path(skimage.__file__).parent / "data" / name) for name in names]


def stand_in_weights(path: Path) -> None:
    """Write random tensors in the official layout, scaled so that tokens differ between patches."""
    from patchprism.backbones import dinov2, find_record

    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in dinov2.build(find_record("dinov2_vits14")).state_dict().items():
        values = torch.randn(tensor.shape, generator=generator)
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
        if name.endswith(("norm1.weight", "norm2.weight", "norm.weight")):
            values = 1 + 0.1 * values
        elif name.endswith("gamma"):
            values = 0.5 + 0.1 * values
        elif name.endswith("bias"):
            values = 0.02 * values
        elif name not in ("cls_token", "pos_embed", "mask_token"):
            values = values * 1.5 / fan_in**0.5
        else:
            values = 0.3 * values
        state[name] = values
    torch.save(state, path)


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "TQDM_DISABLE": "1"})
    return time.perf_counter() - start


def compare(ours: Path, plain: Path, photos: list[str]) -> str:
    theirs = np.load(plain / "arrays.npz")
    mine = [np.load(ours / f"{Path(photo).stem}.npz") for photo in photos]
    score, mask = (np.concatenate([m[key].ravel() for m in mine]) for key in ("score", "foreground"))
    clear = np.abs(theirs["score"] - 0.6) > 1e-4
    both = clear & mask & theirs["mask"]
    rgb, raw = (np.concatenate([m[key].reshape(-1, 3) for m in mine]) for key in ("rgb", "rgb_all"))
    return (
        f"largest difference of scores {np.abs(score - theirs['score']).max():.1e}, "
        f"of colours {np.abs(rgb - theirs['colors'])[both].max():.1e}, "
        f"of all-patch colours {np.abs(raw - theirs['raw'])[clear].max():.1e}; "
        f"masks differ in {np.count_nonzero(mask[clear] != theirs['mask'][clear])} of {clear.sum()} patches"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*", default=default_photos())
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights, ours_out = Path(folder) / "vits14.pth", Path(folder) / "ours"
        os.environ["PATCHPRISM_CACHE"] = str(Path(folder) / "cache")
        stand_in_weights(weights)
        ours = [sys.executable, "-m", "patchprism", "render", *args.photos, "--out", str(ours_out)]
        ours += ["--weights", str(weights), "--preset", "seed", "--device", "cpu", "--quiet"]
        for attention in ("matmul", "sdpa"):
            plain_out = Path(folder) / attention
            plain = [sys.executable, str(HERE / "plain_seed.py"), *args.photos, "--weights", str(weights)]
            plain += ["--out", str(plain_out), "--attention", attention]
            timed([*ours, "--arrays"]), timed(plain)  # warm up the file cache, and write arrays to compare
            pairs = [(timed(ours), timed(plain)) for _ in range(args.runs)]
            ratios = sorted(a / b for a, b in pairs)
            print(
                f"patchprism {statistics.median(a for a, _ in pairs):.2f} s, plain script ({attention} attention) "
                f"{statistics.median(b for _, b in pairs):.2f} s: ratio {statistics.median(ratios):.2f} "
                f"(from {ratios[0]:.2f} to {ratios[-1]:.2f}, {args.runs} pairs)"
            )
            print("  " + compare(ours_out, plain_out, args.photos))
        report = json.loads((ours_out / "report.json").read_text())
        print("  stages of ours, seconds: " + ", ".join(f"{k} {v:.2f}" for k, v in report["seconds"].items()))


if __name__ == "__main__":
    main()
