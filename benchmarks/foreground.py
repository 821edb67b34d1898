"""How often the foreground is right: masks of several methods beside true masks.

Run ``python benchmarks/foreground.py FOLDER [FOLDER ...] --weights vits14.pth`` with folders that hold ``photos/``,
``masks/`` (PNG by the same stem: 255 object, 0 ground, anything between is left out) and ``manifest.json`` (a list of
``name`` and ``category``). Every method sees all photos as one job, each category as a job, and each photo alone.

Printed for each network and method: mean IoU, mean of the worst tenth, maximum F (beta squared 0.3) of the score,
mean absolute error of the score; at patch level, and IoU at the photo's resolution.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import patchprism
from patchprism.prism.foreground import label_patches, on_border, unit


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", help="a ViT-S/14 checkpoint in DINOv2's layout")
    parser.add_argument("--layers", type=int, nargs="*", default=[7, 8, 9, 11])
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--verbose", action="store_true", help="print the IoU of every photo")
    options = parser.parse_args()
    photos, masks, categories = [], [], []
    for folder in options.folders:
        for entry in json.loads((folder / "manifest.json").read_text(encoding="utf-8")):
            photos.append(next((folder / "photos").glob(f"{entry['name']}.*")))
            masks.append(np.asarray(Image.open(folder / "masks" / f"{entry['name']}.png").convert("L")))
            categories.append(entry["category"])
    networks = [("efficientnet_lite2", {"model": "efficientnet_lite2"})]
    if options.weights:
        given = {"model": "dinov2_vits14", "weights": options.weights}
        networks += [(f"ViT-S/14, block {layer}", given | {"layer": layer}) for layer in options.layers]
    for name, network in networks:
        view = patchprism.visualize(photos, size=options.size, **network)
        truths = [
            patch_truth(mask, view.crops[i], view.sizes[i], view.scores[i].shape)
            for i, mask in enumerate(masks)
        ]
        print(f"\n{name}: {len(photos)} photos")
        print(f"{'method':<14}{'job':<12}{'IoU':>7}{'worst':>7}{'max F':>7}{'MAE':>7}{'IoU, pixels':>13}")
        for method, fit in METHODS.items():
            for job, groups in jobs(categories).items():
                if method in ALONE and job != "alone":
                    continue
                results = {}
                for group in groups:
                    for i, result in zip(group, fit([view.features[i] for i in group]), strict=True):
                        results[i] = result
                report(method, job, results, truths, masks, view, verbose=options.verbose)


def jobs(categories: list[str]) -> dict[str, list[list[int]]]:
    """Which photos are one job."""
    by = defaultdict(list)
    for i, category in enumerate(categories):
        by[category].append(i)
    return {
        "together": [list(range(len(categories)))],
        "category": list(by.values()),
        "alone": [[i] for i in range(len(categories))],
    }


# ---------------------------------------------------------------- methods: features -> (score, mask) of each photo


def with_prism(features, foreground):
    """A prism's own foreground."""
    prism = patchprism.Prism(foreground=foreground).fit(features)
    return [(part.score, part.foreground) for part in (prism.split(tokens) for tokens in features)]


def labels_alone(features):
    """Each photo's own labels, without a direction."""
    return [(mask.astype(np.float32), mask) for mask in map(label_patches, features)]


def tokencut(features):
    """TokenCut (Wang et al., 2022) on each photo: the second eigenvector, split at its mean, border side is ground."""
    from scipy.linalg import eigh

    results = []
    for tokens in features:
        h, w, _ = tokens.shape
        rows = unit(tokens).reshape(h * w, -1).astype(np.float64)
        graph = np.where(rows @ rows.T > 0.2, 1.0, 1e-5)
        degree = graph.sum(axis=1)
        _, vectors = eigh(np.diag(degree) - graph, np.diag(degree), subset_by_index=[1, 1])
        score = vectors[:, 0].reshape(h, w)
        score = (score - score.min()) / max(float(np.ptp(score)), 1e-12)
        mask = score > score.mean()
        border = on_border(h, w)
        if mask[border].mean() / max(mask.mean(), 1e-9) > (~mask)[border].mean() / max((~mask).mean(), 1e-9):
            score, mask = 1 - score, ~mask
        results.append((score, mask))
    return results


METHODS = {
    "pca": partial(with_prism, foreground="pca"),
    "TokenCut": tokencut,
    "labels alone": labels_alone,
    "object": partial(with_prism, foreground="object"),
}
ALONE = ("TokenCut", "labels alone")


# ---------------------------------------------------------------- measures


def patch_truth(mask, crop, size, grid):
    """True masks at patch level: object where it covers more than half, and which patches count."""
    rows, columns = grid
    down, across = mask.shape[0] / size[0], mask.shape[1] / size[1]
    left, top, right, bottom = crop
    box = (
        left * across,
        top * down,
        min(right * across, mask.shape[1]),
        min(bottom * down, mask.shape[0]),
    )

    def shares(where):
        return np.asarray(
            Image.fromarray(where.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX, box=box)
        )

    unsure = shares((mask > 0) & (mask < 255))
    return shares(mask == 255) > 0.5 * (1 - unsure), unsure < 0.5


def overlap(mask, truth, counts):
    """IoU where the truth counts."""
    union = ((mask | truth) & counts).sum()
    return float((mask & truth & counts).sum() / union) if union else 1.0


def best_f(score, truth, counts):
    """Largest F measure over 255 thresholds, beta squared 0.3."""
    values, wanted = score[counts], truth[counts]
    best = 0.0
    for threshold in np.arange(255) / 255:
        chosen = values > threshold
        hits = (chosen & wanted).sum()
        precision, recall = hits / max(chosen.sum(), 1), hits / max(wanted.sum(), 1)
        best = max(best, 1.3 * precision * recall / max(0.3 * precision + recall, 1e-9))
    return best


def report(method, job, results, truths, masks, view, *, verbose):
    """One line of the table."""
    ious, pixels, fs, errors = [], [], [], []
    for i, (score, mask) in sorted(results.items()):
        truth, counts = truths[i]
        ious.append(overlap(mask, truth, counts))
        fs.append(best_f(score, truth, counts))
        errors.append(float(np.abs(score - truth)[counts].mean()))
        full = masks[i]
        left, top, right, bottom = view.crops[i]
        height, width = view.sizes[i]
        down, across = full.shape[0] / height, full.shape[1] / width
        rows = ((np.arange(full.shape[0]) + 0.5) / down - top) / (bottom - top) * mask.shape[0]
        columns = ((np.arange(full.shape[1]) + 0.5) / across - left) / (right - left) * mask.shape[1]
        rows = np.clip(rows.astype(int), 0, mask.shape[0] - 1)
        columns = np.clip(columns.astype(int), 0, mask.shape[1] - 1)
        sure = (full == 0) | (full == 255)
        pixels.append(overlap(mask[np.ix_(rows, columns)], full == 255, sure))
    worst = np.mean(sorted(ious)[: max(1, len(ious) // 10)])
    print(
        f"{method:<14}{job:<12}{np.mean(ious):>7.3f}{worst:>7.2f}{np.mean(fs):>7.3f}{np.mean(errors):>7.3f}{np.mean(pixels):>13.3f}",
        flush=True,
    )
    if verbose:
        for i, iou in zip(sorted(results), ious, strict=True):
            print(f"    {Path(view.names[i]).name:<24}{iou:.2f}")


if __name__ == "__main__":
    main()
