"""Photos per second by batch size, and the share of the time that is spent outside the network.

Both are measured with efficientnet_lite2 at 224, on photos of 320 x 240 pixels on disk, as medians of interleaved
rounds. The accuracy is the largest difference of any token from the tokens of batches with one photo.

    python benchmarks/throughput.py [--photos 64] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from memory import make_photos
from patchprism import load_backbone
from patchprism.features.batching import patches_per_batch
from patchprism.features.store import StoredFeatures
from patchprism.jobs.engines import open_engine
from patchprism.jobs.render import render_photos
from patchprism.jobs.run import Run
from patchprism.jobs.settings import Settings
from patchprism.jobs.stores import extract_features
from patchprism.pictures.options import PictureOptions


class Timed:
    """A backbone that measures the time of its forward passes."""

    def __init__(self, backbone: object) -> None:
        self.backbone, self.seconds = backbone, 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self.backbone, name)

    def patch_tokens(self, pixels: object, **options: object) -> object:
        """See :class:`Backbone`."""
        start = time.perf_counter()
        tokens = self.backbone.patch_tokens(pixels, **options)
        self.seconds += time.perf_counter() - start
        return tokens


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    backbone = Timed(load_backbone("efficientnet_lite2", device="cpu"))
    sizes = [1, 4, 16, 64, None]
    walls: dict[object, list[float]] = {size: [] for size in sizes}
    outside: dict[object, list[float]] = {size: [] for size in sizes}
    differences = {}
    with tempfile.TemporaryDirectory() as scratch, open_engine() as engine:
        photos = Path(scratch, "photos")
        photos.mkdir()
        make_photos(photos, arguments.photos)
        reference = None
        for round_ in range(arguments.rounds):
            for size in sizes:
                settings = Settings(model="efficientnet_lite2", size=224, batch_size=size)
                out = Path(scratch, f"{round_}-{size}.zarr")
                backbone.seconds = 0.0
                start = time.perf_counter()
                run = Run(engine=engine, backbone=backbone)
                extract_features([photos], out, settings=settings, run=run, tokens="float32")
                wall = time.perf_counter() - start
                walls[size].append(wall)
                outside[size].append(1 - backbone.seconds / wall)
                tokens = list(StoredFeatures(out))
                reference = reference or tokens
                differences[size] = max(
                    float(np.abs(a - b).max()) for a, b in zip(reference, tokens, strict=True)
                )
        print(
            f"features, {arguments.photos} photos at 224; default: {patches_per_batch(backbone)} patches per batch"
        )
        print("batch  photos/s  outside the network  max difference")
        for size in sizes:
            rate, share = arguments.photos / statistics.median(walls[size]), statistics.median(outside[size])
            print(f"{size or 'rule':>5}  {rate:8.1f}  {share:19.0%}  {differences[size]:.1e}")
        backbone.seconds = 0.0
        start = time.perf_counter()
        outcome = render_photos(
            [photos],
            Path(scratch, "pictures"),
            settings=Settings(model="efficientnet_lite2", size=224),
            pictures=PictureOptions(),
            run=Run(engine=engine, backbone=backbone),
        )
        wall = time.perf_counter() - start
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in outcome.seconds.items())
        print(
            f"render, whole: {wall:.2f} s, {1 - backbone.seconds / wall:.0%} outside the network ({stages})"
        )


if __name__ == "__main__":
    main()
