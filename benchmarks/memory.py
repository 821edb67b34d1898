"""Peak memory of ``patchprism render`` over the number of photos; draws docs/images/memory.png.

Each point is a new process with efficientnet_lite2 at 224, on crops of scikit-image's CC0 photos; memory is the peak
resident size as the kernel records it. Both ways of working are shown: in memory (like ``patchprism.visualize``, and
``render`` with up to 64 photos) and shard by shard.

    python benchmarks/memory.py [--counts 50,200,500,2000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

CHILD = """
import resource, sys, time
start = time.perf_counter()
from patchprism.cli import entry
sys.argv[0] = "patchprism"
try:
    entry()
except SystemExit as stop:
    assert not stop.code, stop.code
seconds = time.perf_counter() - start
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, seconds)
"""


def make_photos(folder: Path, count: int) -> None:
    """Crops of four CC0 photos, 320 pixels on the longer side, two of three landscape."""
    from PIL import Image
    from skimage import data

    rng = np.random.default_rng(0)
    whole = [Image.fromarray(photo()) for photo in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
    for i in range(count):
        photo = whole[i % len(whole)]
        left, top = (int(rng.integers(0, side // 4)) for side in photo.size)
        box = (left, top, left + photo.width * 3 // 4, top + photo.height * 3 // 4)
        photo.resize((320, 240) if i % 3 else (240, 320), box=box).save(folder / f"{i:05d}.jpg", quality=90)


def measure(photos: list[Path], *options: str) -> tuple[float, float]:
    """Peak resident size in MB and seconds of one ``render``."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            "render",
            *map(str, photos),
            "--out",
            f"{out}/o",
            "--model",
            "efficientnet_lite2",
            "--size",
            "224",
        ]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *command, "--quiet", *options], capture_output=True, text=True
        )
    words = [line for line in done.stdout.splitlines() if line.startswith("PEAK")]
    if not words:
        raise SystemExit(done.stderr)
    _, kilobytes, seconds = words[0].split()
    return int(kilobytes) / 1000, float(seconds)


def main() -> None:
    """Measure, print a table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="10,50,200,500,1000,2000")
    parser.add_argument("--plot", default=str(ROOT / "docs" / "images" / "memory.png"))
    counts = [int(count) for count in parser.parse_args().counts.split(",")]
    plot = Path(parser.parse_args().plot)
    streamed: dict[int, float] = {}
    in_memory: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder), max(counts))
        photos = sorted(Path(folder).iterdir())
        print("photos  tokens       peak MB  seconds  photos/s")
        for count in counts:
            ways = [("shards", streamed, ["--resume"])]
            if count <= 64:
                ways.insert(0, ("in memory", in_memory, []))
            for label, found, options in ways:
                found[count], seconds = measure(photos[:count], *options)
                print(
                    f"{count:6,}  {label:10} {found[count]:9,.0f} {seconds:8.1f} {count / seconds:9.1f}",
                    flush=True,
                )
    if 50 in streamed and 2000 in streamed:
        print(f"2,000 photos beside 50: {streamed[2000] / streamed[50]:.3f} (shards both)")
        if 50 in in_memory:
            print(
                f"2,000 photos beside 50: {streamed[2000] / in_memory[50]:.3f} (50 in memory, as render does it)"
            )
    draw(streamed, in_memory, plot)


def draw(streamed: dict[int, float], in_memory: dict[int, float], path: Path) -> None:
    """Draw the plot of docs/scaling.md."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(list(streamed), list(streamed.values()), "o-", color="#21837f", label="shard by shard")
    axis.plot(
        list(in_memory), list(in_memory.values()), "s--", color="#c4683a", label="in memory (to 64 photos)"
    )
    axis.set(xlabel="photos", ylabel="peak resident size, MB", xscale="log")
    axis.set_ylim(0, 1.25 * max([*streamed.values(), *in_memory.values()]))
    axis.set_xticks(list(streamed), [f"{count:,}" for count in streamed])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
