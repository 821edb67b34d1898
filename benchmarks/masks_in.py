"""Accuracy of the foreground that is learned from a few masks or a few clicks.

Run ``python benchmarks/masks_in.py FOLDER --weights vits14.pth`` with a folder as for ``benchmarks/foreground.py``
(``photos/``, ``masks/``, ``manifest.json``).

For each network, a head is fitted to the masks of 1, 3 or 5 photos (or to some clicks per class in 3 photos), drawn at
random several times with a fixed seed, and measured on the photos that were not drawn. "Same kind" is one mask,
measured on the other photos of its category. For comparison, the automatic foreground of all photos together is
measured on the same photos. Printed are the mean IoU of patches, the mean of the worst tenth, and CPU seconds per fit.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

import patchprism
from patchprism.prism.labels import class_shares, patch_labels, relative_crop


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", help="a ViT-S/14 checkpoint in DINOv2's layout")
    parser.add_argument("--layers", type=int, nargs="*", default=[8, 11])
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    entries = json.loads((options.folder / "manifest.json").read_text(encoding="utf-8"))
    photos = [next((options.folder / "photos").glob(f"{entry['name']}.*")) for entry in entries]
    masks = [three_valued(options.folder / "masks" / f"{entry['name']}.png") for entry in entries]
    networks = [("efficientnet_lite2", {"model": "efficientnet_lite2"})]
    if options.weights:
        given = {"model": "dinov2_vits14", "weights": options.weights}
        networks += [(f"ViT-S/14, block {layer}", given | {"layer": layer}) for layer in options.layers]
    for name, network in networks:
        view = patchprism.visualize(photos, size=options.size, **network)
        measure(name, view, masks, [entry["category"] for entry in entries], options.draws)


def three_valued(path: Path) -> np.ndarray:
    """A mask with 1 for object, 0 for background, and -1 for unknown."""
    values = np.asarray(Image.open(path).convert("L"))
    return np.where(values == 255, 1, np.where(values == 0, 0, -1))


def measure(
    name: str, view: patchprism.Visualization, masks: list[np.ndarray], categories: list[str], draws: int
) -> None:
    """Print the rows of one network."""
    shares = [
        class_shares(mask, view.scores[i].shape, relative_crop(view.crops[i], view.sizes[i]), 2)
        for i, mask in enumerate(masks)
    ]
    labels = [patch_labels(each) for each in shares]
    automatic = np.array([iou(each.foreground, share) for each, share in zip(view, shares, strict=True)])
    print(f"\n{name}: {len(masks)} photos, {draws} draws")
    print(f"{'taught by':<24}{'IoU':>7}{'worst':>7}{'automatic':>11}{'better':>8}{'CPU s':>8}")
    for said, n_photos, clicks, same in (
        ("mask of 1, same kind", 1, 0, True),
        *((f"masks of {n}", n, 0, False) for n in (1, 3, 5)),
        *((f"{c} + {c} clicks in 3", 3, c, False) for c in (1, 3, 10)),
    ):
        random = np.random.default_rng(0)
        found, beside, seconds = [], [], []
        for draw in range(len(masks) if same else draws):
            chosen = [draw] if same else random.choice(len(masks), n_photos, replace=False)
            given = [
                (clicked(each, clicks, random) if clicks else each) if i in chosen else None
                for i, each in enumerate(labels)
            ]
            start = time.process_time()
            head = patchprism.Head().fit(view.features, given)
            seconds.append(time.process_time() - start)
            rest = [i for i in range(len(masks)) if i not in chosen]
            if same:
                rest = [i for i in rest if categories[i] == categories[draw]]
            found += [iou(head.score_of(view.features[i]) > 0.5, shares[i]) for i in rest]
            beside += [automatic[i] for i in rest]
        ious = np.array(found)
        worst = np.sort(ious)[: max(1, len(ious) // 10)].mean()
        better = (ious > np.array(beside)).mean()
        print(
            f"{said:<24}{ious.mean():>7.3f}{worst:>7.3f}{np.mean(beside):>11.3f}{better:>8.0%}{np.mean(seconds):>8.2f}"
        )


def clicked(labels: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Keep at most ``count`` random labels of each class."""
    some = np.full_like(labels, -1)
    for number in (0, 1):
        places = np.flatnonzero(labels == number)
        some.flat[random.choice(places, min(count, len(places)), replace=False)] = number
    return some


def iou(mask: np.ndarray, shares: np.ndarray) -> float:
    """Intersection over union of the patches whose truth is known for more than half of their area."""
    known = shares.sum(axis=-1) > 0.5
    truth = shares[..., 1] > shares[..., 0]
    union = ((mask | truth) & known).sum()
    return float((mask & truth & known).sum() / union) if union else 1.0


if __name__ == "__main__":
    main()
