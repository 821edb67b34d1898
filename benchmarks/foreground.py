"""Accuracy and stability of the foreground: the tables of docs/foreground.md.

Run ``python benchmarks/foreground.py FOLDER [FOLDER ...] --weights vits14.pth`` with folders that contain ``photos/``,
``masks/`` (PNG files with the same stems: 255 object, 0 background, other values are ignored) and ``manifest.json`` (a
list of ``name`` and ``category``). ``--tables`` selects some of these tables:

- ``quality``: several methods, with all photos as one job, each category as a job, and each photo alone. Mean
  intersection over union (IoU), mean IoU of the worst tenth, maximum F (beta squared 0.3, of the mean curve), and mean
  absolute error of the score (scaled per photo); per patch, and per pixel of the photo, to which the score is
  upsampled.
- ``cases``: IoU on photos made by ``foreground_cases.py``: objects at each border, several objects, objects that fill
  the frame, and no object.
- ``stability``: share of the patches that change with the order of the photos, bfloat16, mirroring, noise, JPEG, and
  fewer photos.
- ``cost``: CPU seconds that the method adds to a job, and those of the network.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import patchprism
from foreground_cases import cases, compressed, mirrored, noisy
from patchprism.prism.foreground import label_patches, on_border, unit

TABLES = ("quality", "cases", "stability", "cost")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", help="a ViT-S/14 checkpoint in DINOv2's layout")
    parser.add_argument("--layers", type=int, nargs="*", default=[7, 8, 9, 11])
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=TABLES)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--verbose", action="store_true", help="print the IoU of every photo")
    options = parser.parse_args()
    data = Photos()
    for folder in options.folders:
        data.add(folder)
    networks = {"efficientnet_lite2": {"model": "efficientnet_lite2"}}
    for layer in options.layers if options.weights else ():
        networks[f"ViT-S/14, block {layer}"] = {
            "model": "dinov2_vits14",
            "weights": options.weights,
            "layer": layer,
        }
    for name, network in networks.items():
        network["size"] = options.size
        print(f"\n{name}: {len(data.photos)} photos", flush=True)
        view = patchprism.visualize(data.photos, **network)
        if "quality" in options.tables:
            quality(data, view, verbose=options.verbose)
        made = {}
        if {"cases", "stability"} & {*options.tables}:
            made = cases(data.photos, data.masks)
            tokens = {case: tokens_of([photo for photo, _ in pairs], network) for case, pairs in made.items()}
        if "cases" in options.tables:
            of_cases(made, tokens)
        if "stability" in options.tables:
            stability(data.photos, view, network, [each for case in tokens.values() for each in case])
        if "cost" in options.tables:
            cost(data.photos, network)


@dataclass
class Photos:
    """Photos, their true masks (uint8) and categories."""

    photos: list = field(default_factory=list)
    masks: list = field(default_factory=list)
    categories: list = field(default_factory=list)
    names: list = field(default_factory=list)

    def add(self, folder: Path) -> None:
        """Add a folder's photos."""
        for entry in json.loads((folder / "manifest.json").read_text(encoding="utf-8")):
            photo = patchprism.read_photo(next((folder / "photos").glob(f"{entry['name']}.*")))
            mask = Image.open(folder / "masks" / f"{entry['name']}.png").convert("L")
            self.photos.append(photo)
            self.masks.append(
                np.asarray(mask.resize((photo.shape[1], photo.shape[0]), Image.Resampling.NEAREST))
            )
            self.categories.append(entry["category"])
            self.names.append(entry["name"])

    def jobs(self) -> dict[str, list[list[int]]]:
        """The jobs of each kind, as lists of photo indices."""
        by = defaultdict(list)
        for i, category in enumerate(self.categories):
            by[category].append(i)
        return {
            "together": [list(range(len(self.photos)))],
            "category": list(by.values()),
            "alone": [[i] for i in range(len(self.photos))],
        }


def tokens_of(photos, network, **options):
    """Patch tokens of photos."""
    given = {key: value for key, value in network.items() if key == "weights"}
    layer = {key: value for key, value in network.items() if key == "layer"}
    backbone = patchprism.load_backbone(network["model"], **given, **options)
    return list(patchprism.extract(photos, backbone=backbone, size=network["size"], **layer))


# ---------------------------------------------------------------- methods: features -> (score, threshold) of each photo


def with_prism(features, foreground):
    """The foreground of a prism."""
    prism = patchprism.Prism(foreground=foreground).fit(features)
    scores = [prism.score_of(tokens) for tokens in features]
    if prism.side_ == "below":
        return [(1 - score, 1 - prism.threshold_) for score in scores]
    return [(score, prism.threshold_) for score in scores]


def labels_alone(features):
    """The labels of each photo, without the foreground direction."""
    return [(mask.astype(np.float32), 0.5) for mask in map(label_patches, features)]


def tokencut(features):
    """TokenCut (Wang et al., 2022) on each photo: the second eigenvector, split at its mean."""
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
        mask, border = score > score.mean(), on_border(h, w)
        if border[mask].mean() > border[~mask].mean():
            score = 1 - score
        results.append((score, float(score.mean())))
    return results


METHODS = {
    "pca": partial(with_prism, foreground="pca"),
    "TokenCut": tokencut,
    "labels alone": labels_alone,
    "object": partial(with_prism, foreground="object"),
}
ALONE = ("TokenCut", "labels alone")


# ---------------------------------------------------------------- measures


def patch_truth(mask, grid, box=None):
    """The true mask per patch (object if it covers more than half), and the patches that count."""

    def shares(where):
        image = Image.fromarray(where.astype(np.float32))
        return np.asarray(image.resize(grid[::-1], Image.Resampling.BOX, box=box))

    unsure = shares((mask > 0) & (mask < 255))
    return shares(mask == 255) > 0.5 * (1 - unsure), unsure < 0.5


def at_pixels(values, crop, size):
    """Values of patches at the photo's pixels: bilinear inside the network's crop, constant beyond its edges."""
    left, top, right, bottom = crop
    rows = (np.arange(size[0]) + 0.5 - top) / (bottom - top) * values.shape[0] - 0.5
    columns = (np.arange(size[1]) + 0.5 - left) / (right - left) * values.shape[1] - 0.5
    for places, axis in ((rows, 0), (columns, 1)):
        places = places.clip(0, values.shape[axis] - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = np.expand_dims(places - low, 1 - axis)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def overlap(mask, truth, counts=True):
    """IoU over the patches or pixels that count."""
    union = ((mask | truth) & counts).sum()
    return float((mask & truth & counts).sum() / union) if union else 1.0


def measured(score, threshold, truth, counts):
    """IoU, F curve and mean absolute error of one photo."""
    values, wanted = score[counts], truth[counts]
    iou = overlap(values > threshold, wanted)
    values = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    bins = (values * 255).astype(np.uint8)
    inside, outside = (
        np.bincount(bins[of], minlength=256)[::-1].cumsum().astype(float) for of in (wanted, ~wanted)
    )
    precision, recall = inside / np.maximum(inside + outside, 1), inside / max(inside[-1], 1)
    curve = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-9)
    return iou, curve, float(np.abs(values - wanted).mean())


def summed(results):
    """Mean IoU, mean IoU of the worst tenth, maximum F, and mean absolute error."""
    ious, curves, errors = zip(*results, strict=True)
    worst = np.mean(sorted(ious)[: max(1, len(ious) // 10)])
    return np.mean(ious), worst, np.mean(curves, axis=0).max(), np.mean(errors)


# ---------------------------------------------------------------- tables


def quality(data, view, *, verbose):
    """Print a row per method and job, with measures per patch and per pixel."""
    columns = ("IoU", "worst", "max F", "MAE")
    heads = "".join(f"{column:>7}" for column in columns)
    print(f"{'':26}{'by patches':^28}   {'by pixels':^28}\n{'method':<14}{'job':<12}{heads}   {heads}")
    truths = []
    for mask, crop, features in zip(data.masks, view.crops, view.features, strict=True):
        inside = (max(crop[0], 0), max(crop[1], 0), min(crop[2], mask.shape[1]), min(crop[3], mask.shape[0]))
        truths.append(patch_truth(mask, features.shape[:2], inside))
    for method, fit in METHODS.items():
        for job, groups in data.jobs().items():
            if method in ALONE and job != "alone":
                continue
            patches, pixels = {}, {}
            for group in groups:
                found = fit([view.features[i] for i in group])
                for i, (score, threshold) in zip(group, found, strict=True):
                    patches[i] = measured(score, threshold, *truths[i])
                    mask = data.masks[i]
                    full = at_pixels(score, view.crops[i], mask.shape)
                    pixels[i] = measured(full, threshold, mask == 255, (mask == 0) | (mask == 255))
            by = [summed([results[i] for i in sorted(results)]) for results in (patches, pixels)]
            lines = ["".join(f"{value:7.3f}" for value in values) for values in by]
            print(f"{method:<14}{job:<12}{lines[0]}   {lines[1]}", flush=True)
            if verbose:
                for i in sorted(patches):
                    print(f"    {data.names[i]:<24}{patches[i][0]:.2f}")


def of_cases(made, tokens):
    """Print IoU per patch, each photo alone and each case as one job; without objects, the share of foreground."""
    columns = ("labels, alone", "pca, alone", "object, alone", "pca, together", "object, together")
    print(f"{'case (photos)':<20}" + "".join(f"{column:>18}" for column in columns))
    for case, pairs in made.items():
        features = tokens[case]
        truths = [patch_truth(mask, each.shape[:2]) for (_, mask), each in zip(pairs, features, strict=True)]
        found = [labels_alone(features)]
        for method in ("pca", "object"):
            found.append([with_prism([each], method)[0] for each in features])
        found += [with_prism(features, method) for method in ("pca", "object")]
        values = []
        for results in found:
            masks = [score > threshold for score, threshold in results]
            values.append(
                np.mean(
                    [overlap(*each) if case != "none" else each[0].mean() for each in _paired(masks, truths)]
                )
            )
        told = "" if case != "none" else "   (share of the photo that is found)"
        print(
            f"{case + f' ({len(pairs)})':<20}" + "".join(f"{value:>18.2f}" for value in values) + told,
            flush=True,
        )


def _paired(masks, truths):
    return [(mask, *truth) for mask, truth in zip(masks, truths, strict=True)]


def stability(photos, view, network, others):
    """Print the share of the patches that change, in percent, and mean IoU of the masks before and after."""
    base = list(view.features)

    def masks(features, prism=None):
        prism = prism or patchprism.Prism().fit(features)
        return [prism.foreground_of(each) for each in features]

    before = masks(base)
    many = patchprism.Prism().fit(base + others[: max(0, 200 - len(base))])
    two = [mask for i in range(0, len(base) - 1, 2) for mask in masks(base[i : i + 2])]
    after = {
        "other order": masks(base[::-1])[::-1],
        "bfloat16": masks(tokens_of(photos, network, dtype="bfloat16")),
        "mirrored": [m[:, ::-1] for m in masks(tokens_of([mirrored(p) for p in photos], network))],
        "noise of 5/255": masks(tokens_of([noisy(p, i) for i, p in enumerate(photos)], network)),
        "JPEG quality 50": masks(tokens_of([compressed(p) for p in photos], network)),
        "half of the photos": [
            mask for pair in zip(masks(base[::2]), masks(base[1::2]), strict=False) for mask in pair
        ],
        "two at a time": two,
        "among two hundred": masks(base, many),
    }
    print(f"{'change':<20}{'patches changed':>16}{'IoU of the masks':>18}")
    for name, changed in after.items():
        pairs = list(zip(before, changed, strict=False))
        share = 100 * np.mean([np.mean(a != b) for a, b in pairs])
        print(f"{name:<20}{share:>14.2f} %{np.mean([overlap(a, b) for a, b in pairs]):>18.3f}", flush=True)


def cost(photos, network):
    """Print CPU seconds per photo of the network and of fits with and without the method; the minimum of three runs."""
    few = photos[:8]

    def least(work):
        times = []
        for _ in range(3):
            start = time.process_time()
            result = work()
            times.append(time.process_time() - start)
        return min(times) / len(few), result

    extracting, features = least(partial(tokens_of, few, network))
    fitting = {
        foreground: least(partial(with_prism, features, foreground))[0] for foreground in ("pca", "object")
    }
    added = fitting["object"] - fitting["pca"]
    patches = np.mean([each.shape[0] * each.shape[1] for each in features])
    print(
        f"cost per photo of {patches:.0f} patches: {1000 * extracting:.0f} ms to read it and run the network; fit "
        f"with pca {1000 * fitting['pca']:.0f} ms, with object {1000 * fitting['object']:.0f} ms, which adds "
        f"{added / extracting:.1%} of the former"
    )


if __name__ == "__main__":
    main()
