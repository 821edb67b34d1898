"""Accuracy of masks at borders, and its cost: upsampling, overlapping patches, larger sizes, finer tokens, tiles.

    python benchmarks/crisp.py FOLDER --weights vits14.pth           # the table
    python benchmarks/crisp.py FOLDER --weights vits14.pth --seams   # differences across the seams of tiles

FOLDER contains ``photos/``, ``masks/`` (PNG files with the same stems: 255 object, 0 background, other values are
ignored) and ``manifest.json``. All photos are one job. IoU and boundary F compare masks at the photos' resolution and
are means over photos; a border counts as found within 2 pixels, for photos scaled to a shorter edge of 448. Seconds are
processor seconds per photo on one thread, of the network (with framing and refining) and of the upsampling; memory is
the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
from PIL import Image

UPSAMPLES = ("nearest", "bilinear", "guided")
WAYS = {
    "size 448": {},
    "size 448, refine 4": {"refine": 4},
    "size 896, tile 448": {"size": 896, "tile": 448},
    "size 448, stride 7": {"stride": 7},
    "size 896": {"size": 896},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", required=True, help="a ViT-S/14 checkpoint in DINOv2's layout")
    parser.add_argument("--layer", type=int, default=8)
    parser.add_argument("--photos", type=int, help="maximum number of photos")
    parser.add_argument("--seams", action="store_true")
    options = parser.parse_args()
    names = [each["name"] for each in json.loads((options.folder / "manifest.json").read_text("utf-8"))]
    names = names[: options.photos]
    if options.seams:
        seams(options, names)
        return
    print(f"{len(names)} photos")
    print(
        f"{'tokens':22}{'upsampling':12}{'IoU':>8}{'border F':>10}{'network s':>11}{'upsample s':>12}{'memory MB':>11}"
    )
    context = multiprocessing.get_context("spawn")
    for way in WAYS:
        process = context.Process(target=measure, args=(way, options, names))
        process.start()
        process.join()


def measure(way: str, options: argparse.Namespace, names: list[str]) -> None:
    """Print the rows for one setting of the tokens; runs in a separate process, whose memory is measured."""
    import torch

    import patchprism
    from patchprism.pictures.masks import full_mask

    torch.set_num_threads(1)
    paths = [next((options.folder / "photos").glob(f"{name}.*")) for name in names]
    backbone = patchprism.load_backbone("dinov2_vits14", weights=options.weights)
    start = time.process_time()
    features = patchprism.extract(paths, backbone, layer=options.layer, **WAYS[way])
    network = (time.process_time() - start) / len(names)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    prism = patchprism.Prism().fit(features)
    parts = [prism.split(tokens) for tokens in features]
    chosen = {name: value for name, value in WAYS[way].items() if name in ("size", "stride")}
    framing = backbone.framing(**chosen)
    for method in UPSAMPLES:
        measures, spent = [], 0.0
        for path, name, part in zip(paths, names, parts, strict=True):
            photo = patchprism.read_photo(path)
            crop, size = framing.apply(photo, show=False).crop, photo.shape[:2]
            start = time.process_time()
            found = full_mask(part, prism.shown_threshold, crop=crop, size=size, method=method, photo=photo)
            spent += time.process_time() - start
            truth = np.asarray(Image.open(options.folder / "masks" / f"{name}.png").convert("L"))
            measures.append(compare(found, truth))
        iou, border = np.mean(measures, axis=0)
        print(
            f"{way:22}{method:12}{iou:8.3f}{border:10.3f}{network:11.2f}{spent / len(names):12.3f}{memory:11,.0f}",
            flush=True,
        )


def borders(mask: np.ndarray) -> np.ndarray:
    """Pixels on either side of a border."""
    found = np.zeros_like(mask)
    down, across = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= across
    found[:, :-1] |= across
    return found


def compare(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """IoU, and F of the borders within 2 pixels of a photo scaled to 448."""
    from scipy.ndimage import distance_transform_edt

    wanted, unsure = truth == 255, (truth > 0) & (truth < 255)
    iou = (found & wanted & ~unsure).sum() / max(((found | wanted) & ~unsure).sum(), 1)
    reach = 2 * min(truth.shape) / 448
    near = distance_transform_edt(~unsure) <= reach if unsure.any() else unsure
    ours, theirs = borders(found) & ~near, borders(wanted) & ~near
    if not ours.any() or not theirs.any():
        return float(iou), 0.0
    precision = (distance_transform_edt(~theirs)[ours] <= reach).mean()
    recall = (distance_transform_edt(~ours)[theirs] <= reach).mean()
    return float(iou), float(2 * precision * recall / max(precision + recall, 1e-9))


def seams(options: argparse.Namespace, names: list[str]) -> None:
    """Print how much neighbouring tokens differ across the borders of windows, and elsewhere."""
    import torch

    import patchprism
    from patchprism.features import tiles

    torch.set_num_threads(1)
    backbone = patchprism.load_backbone("dinov2_vits14", weights=options.weights)
    framing = backbone.framing(size=896)
    take, ramp, share = tiles._take_coarse, tiles._ramp, tiles.OVERLAP

    def differences(tokens: np.ndarray, side: int) -> tuple[float, float]:
        """Mean distance of neighbours across the borders of windows, and across all others."""
        across, others = [], []
        for axis in (0, 1):
            length = tokens.shape[axis]
            starts = tiles._starts(length, side)
            edges = {at - 1 for at in starts[1:]} | {at + side - 1 for at in starts[:-1]}
            apart = np.linalg.norm(np.diff(tokens, axis=axis), axis=2).mean(axis=1 - axis)
            for at, value in enumerate(apart):
                (across if at in edges else others).append(value)
        return float(np.mean(across)), float(np.mean(others))

    def network(pixels: torch.Tensor) -> torch.Tensor:
        return backbone.patch_tokens(pixels, layer=options.layer)

    found: dict[str, list[list[float]]] = {}
    for name in names:
        photo = patchprism.read_photo(next((options.folder / "photos").glob(f"{name}.*")))
        pixels = framing.apply(photo, show=False).pixels
        whole = network(pixels[None])[0].numpy()
        for way, changed in {
            "windows side by side": {"OVERLAP": 0.0, "_ramp": lambda side, length: np.ones(side, np.float32)},
            "blended": {},
            "blended, coarse part from the whole": {"_take_coarse": take},
        }.items():
            settings = {"_take_coarse": lambda tokens, small: None, "_ramp": ramp, "OVERLAP": share} | changed
            for key, value in settings.items():
                setattr(tiles, key, value)
            tokens = tiles.tiled(pixels, network, patch=14, side=32)
            across, others = differences(tokens, 32)
            plain_across, plain_others = differences(whole, 32)
            cosine = (
                (tokens * whole).sum(-1) / np.linalg.norm(tokens, axis=-1) / np.linalg.norm(whole, axis=-1)
            )
            found.setdefault(way, []).append(
                [across / others, plain_across / plain_others, float(cosine.mean())]
            )
    print(f"{len(names)} photos at 896, windows of 448")
    print(f"{'':38}{'across / within':>16}{'same, photo whole':>19}{'cosine to whole':>17}")
    for way, rows in found.items():
        seam, plain, cosine = np.mean(rows, axis=0)
        print(f"{way:38}{seam:16.3f}{plain:19.3f}{cosine:17.3f}")


if __name__ == "__main__":
    main()
