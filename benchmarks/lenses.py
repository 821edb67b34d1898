"""The cost of each lens, compared with the forward pass, and whether its results are right.

Uses four of scikit-image's CC0 photos with efficientnet_lite2; attention uses a DINOv2 ViT-S/14 with random weights,
because its time depends only on shapes. Times are medians of interleaved runs in one thread, in seconds of processor
time, whose ratios hardly depend on other work on the machine. Drawing and writing are not counted. Beside each time is
the result of the lens, compared with an independent answer if there is one.

    python benchmarks/lenses.py [rounds]
"""

from __future__ import annotations

import os
import statistics
import sys
import time

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
import torch

import patchprism
from patchprism.lenses.looking import look_through
from patchprism.lenses.options import LensOptions


def photos() -> list[np.ndarray]:
    """Four photos, (H, W, 3) uint8."""
    from skimage import data

    return [data.chelsea(), data.coffee(), data.rocket(), data.astronaut()]


def stand_in() -> patchprism.Backbone:
    """DINOv2 ViT-S/14 with random weights."""
    from patchprism.backbones import WeightsOrigin, find_record
    from patchprism.backbones.dinov2 import DinoV2Backbone, build

    record = find_record("dinov2_vits14")
    network = build(record).to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return DinoV2Backbone(record, network, WeightsOrigin(source="random"), torch.device("cpu"), torch.float32)


def right(name: str, result: object, view: patchprism.Visualization) -> str:
    """The result of a lens in words, checked."""
    from sklearn.metrics.pairwise import cosine_similarity

    rows = [tokens.reshape(-1, tokens.shape[-1]).astype(np.float64) for tokens in view.features]
    if name == "similarity":
        row, column = result.report["points"][0]["patch"]
        query = view.features[0][row, column][None].astype(np.float64)
        errors = [
            np.abs(cosine_similarity(query, r)[0] - arrays["similarity"][0].ravel()).max()
            for r, arrays in zip(rows, result.arrays, strict=True)
        ]
        return f"largest difference from scikit-learn's cosine {max(errors):.1e}"
    if name == "norm":
        errors = [
            np.abs(np.linalg.norm(r, axis=1) / arrays["norm"].ravel() - 1).max()
            for r, arrays in zip(rows, result.arrays, strict=True)
        ]
        return f"largest relative difference from NumPy's norm {max(errors):.1e}"
    if name == "matches":
        cosine = cosine_similarity(rows[0], rows[1])
        forth, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
        expected = int((back[forth] == np.arange(len(forth))).sum())
        return f"{result.report['pairs'][0]['matches']} matches of the first pair, brute force {expected}"
    if name == "clusters":
        report = result.report
        return f"{report['clusters']} clusters, agreement with another seed {report['agreement_with_another_seed']:.2f}"
    if name == "attention":
        share = [s for told in result.report["class_token"] for s in told["share_to_patches"]]
        return f"shares to patches {min(share):.3f} to {max(share):.3f} (at most 1)"
    return ""


def main(rounds: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    size = 448
    for backbone, lenses in (
        (
            patchprism.load_backbone("efficientnet_lite2"),
            ["score", "norm", "similarity", "matches", "clusters"],
        ),
        (stand_in(), ["attention"]),
    ):
        view = patchprism.visualize(photos(), backbone=backbone, size=size)
        pixels = [view.photos.frame(i, view.framing)[0].pixels[None] for i in range(len(view))]
        options = {
            name: LensOptions(
                at=("1:200,150",) if name in ("similarity", "attention") else (), match_all=True
            )
            for name in lenses
        }
        runs: dict[str, list[float]] = {"forward": []}
        cases = [(name, options[name], name) for name in lenses]
        if "clusters" in lenses:
            cases.append(("clusters", LensOptions(clusters=6), "clusters, K=6"))
        said = {}
        for _ in range(rounds):
            start = time.process_time()
            for each in pixels:
                backbone.patch_tokens(each)
            runs["forward"].append(time.process_time() - start)
            for name, chosen, label in cases:
                start = time.process_time()
                (result,) = look_through(view, [name], chosen, backbone=backbone)
                runs.setdefault(label, []).append(time.process_time() - start)
                said[label] = right(name, result, view)
        forward = statistics.median(runs["forward"])
        features = view.features
        print(
            f"{backbone.record.name}, {len(view)} photos, {features.n_patches:,} patches, width {features.width}"
        )
        for label, values in runs.items():
            median = statistics.median(values)
            print(
                f"  {label:14}{median:8.3f} s {median / forward:8.2f} of the forward   {said.get(label, '')}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
