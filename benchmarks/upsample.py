"""Sharpness at object borders, and time, of the three methods from patches to pixels.

The photos are composites with known masks: an object (a silhouette or a blob, filled with a photo's texture) pasted on
another photo, all from scikit-image's CC0 pictures. Each method is measured twice:

- *true mask*: the value of each patch is the share of it that the true mask covers. This measures the method itself.
- *probed mask*: the value of each patch is the prediction of a linear probe on the features of efficientnet_lite2,
  fitted on the same composites. This includes the errors of real features.

``MAE`` is the mean absolute error against the true mask over pixels less than one patch from its border, ``away`` the
same over all other pixels (where a filter can only do harm), ``IoU`` the IoU of the upsampled mask with a threshold of
0.5, and ``width`` the distance in patches over which the mean profile across the border rises from 10 % to 90 % of its
range.

    python benchmarks/upsample.py            # the table
    python benchmarks/upsample.py --choose   # other radii and epsilons
    python benchmarks/upsample.py --time     # a photo of 12 megapixels
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

from patchprism.pictures import upsample as module
from patchprism.pictures.options import UPSAMPLES
from patchprism.pictures.upsample import overlay_smooth, paint_smooth, upsample


def composites(side: int = 1120) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, photo (side, side, 3) uint8 and mask (side, side) bool of each composite."""
    from PIL import Image
    from skimage import data

    def square(array: np.ndarray) -> np.ndarray:
        edge = min(array.shape[:2])
        image = Image.fromarray(np.ascontiguousarray(array[:edge, -edge:])).convert("RGB")
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))

    horse = np.pad(~data.horse().astype(bool), ((100, 100), (64, 64)))
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle = np.arctan2(y, x)
    masks = {
        "horse": np.asarray(Image.fromarray(horse).resize((side, side), Image.Resampling.BICUBIC)) > 0,
        "star": np.hypot(x, y) < 0.5 + 0.14 * np.cos(5 * angle),
        "blob": np.hypot(x - 0.1, y + 0.1) < 0.48 + 0.1 * np.sin(3 * angle) + 0.05 * np.cos(7 * angle),
    }
    grounds = {"grass": data.grass(), "coffee": data.coffee(), "rocket": data.rocket()}
    fillings = {"cat": data.chelsea(), "brick": data.brick(), "retina": data.retina()}
    made = []
    for m, (shape, mask) in enumerate(masks.items()):
        for k, (ground, below) in enumerate(grounds.items()):
            filling, above = list(fillings.items())[(m + k) % len(fillings)]
            photo = np.where(mask[..., None], square(above), square(below))
            made.append((f"{filling} {shape} on {ground}", photo, mask))
    return made


def scores(found: np.ndarray, mask: np.ndarray, patch: float) -> tuple[float, ...]:
    """MAE near the border and away from it, IoU, and the border's width in patches."""
    from scipy.ndimage import distance_transform_edt

    signed = np.where(mask, distance_transform_edt(mask), 1 - distance_transform_edt(~mask)) - 0.5
    near = np.abs(signed) < patch
    error = np.abs(found - mask)
    cut = found > 0.5
    iou = float((cut & mask).sum() / (cut | mask).sum())
    bins = np.arange(-2 * patch, 2 * patch + 1)
    place = np.digitize(signed, bins)
    profile = np.array([found[place == i].mean() for i in range(1, len(bins))])
    low, high = profile[: len(profile) // 8].mean(), profile[-len(profile) // 8 :].mean()
    relative = (profile - low) / (high - low)
    width = (np.argmax(relative > 0.9) - np.argmax(relative > 0.1)) / patch
    return float(error[near].mean()), float(error[~near].mean()), iou, float(width)


def oracle(mask: np.ndarray, patch: int) -> np.ndarray:
    """The share of each patch that a mask covers, (h, w, 1)."""
    h, w = mask.shape[0] // patch, mask.shape[1] // patch
    return mask.reshape(h, patch, w, patch).mean(axis=(1, 3))[..., None].astype(np.float32)


def measure(method: str, cases: list, masks: dict[str, np.ndarray]) -> tuple[float, ...]:
    """Means over the composites."""
    rows = []
    for name, photo, mask in cases:
        size = mask.shape
        found = upsample(masks[name], crop=(0, 0, size[1], size[0]), size=size, method=method, photo=photo)
        rows.append(scores(found[..., 0], mask, size[0] / masks[name].shape[0]))
    return tuple(float(np.mean(column)) for column in zip(*rows, strict=True))


def found_masks(cases: list) -> dict[str, np.ndarray]:
    """Masks that a linear probe, fitted on all composites together, predicts from features of efficientnet_lite2."""
    import patchprism

    backbone = patchprism.load_backbone("efficientnet_lite2")
    view = patchprism.visualize([photo for _, photo, _ in cases], backbone=backbone)
    rows = np.concatenate([tokens.reshape(-1, view.features.width) for tokens in view.features]).astype(float)
    rows -= rows.mean(axis=0)
    truth = np.concatenate([oracle(mask, mask.shape[0] // 28).ravel() for _, _, mask in cases])
    ridge = rows.T @ rows + 1e-3 * np.trace(rows.T @ rows) / rows.shape[1] * np.eye(rows.shape[1])
    probed = rows @ np.linalg.solve(ridge, rows.T @ (truth - truth.mean())) + truth.mean()
    parts = np.clip(probed, 0, 1).astype(np.float32).reshape(len(cases), 28, 28, 1)
    return {name: part for (name, _, _), part in zip(cases, parts, strict=True)}


def table() -> None:
    """Print the table of the docs."""
    cases = composites()
    known = {name: oracle(mask, 40) for name, _, mask in cases}
    found = found_masks(cases)
    print(f"{len(cases)} composites of {cases[0][1].shape[0]} pixels, 28 x 28 patches")
    print(f"{'':10}{'true mask':>40}{'probed mask':>40}")
    print(f"{'method':10}" + f"{'MAE':>10}{'away':>10}{'IoU':>10}{'width':>10}" * 2)
    for method in UPSAMPLES:
        row = measure(method, cases, known) + measure(method, cases, found)
        print(f"{method:10}" + "".join(f"{value:10.3f}" for value in row))


def choose() -> None:
    """Print the table for several settings of the filter."""
    cases = composites()
    known, found = {name: oracle(mask, 40) for name, _, mask in cases}, found_masks(cases)
    for module.RADIUS in (1, 2, 3):
        for module.EPSILON in (3e-5, 1e-4, 3e-4, 1e-3, 1e-2):
            row = measure("guided", cases, known) + measure("guided", cases, found)
            print(
                f"{module.RADIUS:3} {module.EPSILON:7}" + "".join(f"{value:9.3f}" for value in row),
                flush=True,
            )


def timing() -> None:
    """Print processor seconds for a picture of 12 megapixels (one thread), medians of interleaved runs."""
    rng = np.random.default_rng(0)
    photo = np.kron(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), np.ones((100, 100, 1), np.uint8))
    colors = rng.random((32, 43, 3), dtype=np.float32)
    crop, size = (0.0, 0.0, 4000.0, 3000.0), (3000, 4000)
    seconds: dict[str, list[float]] = {}
    for _ in range(5):
        for method in UPSAMPLES:
            start = time.process_time()
            paint_smooth(colors, crop=crop, size=size, method=method, photo=photo)
            seconds.setdefault(f"paint {method}", []).append(time.process_time() - start)
        start = time.process_time()
        overlay_smooth(photo, colors, colors[..., 0] > 0.5, 0.6, crop=crop, method="guided")
        seconds.setdefault("overlay guided", []).append(time.process_time() - start)
    for label, values in seconds.items():
        print(f"{label:16}{statistics.median(values):8.2f} s")


if __name__ == "__main__":
    {"--choose": choose, "--time": timing}.get(sys.argv[-1], table)()
