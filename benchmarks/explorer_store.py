"""The explorer over a store of many photos: time to open it and to search all photos, and the memory it needs.

    python benchmarks/explorer_store.py [--photos 10000] [--side 8] [--width 384] [--keep DIR]

The store contains synthetic tokens of noise photos: a few kinds of patches with different noise. It takes
2 * photos * side**2 * width bytes of disk, 490 MB by default.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchprism.backbones import find_record
from patchprism.features.store import layout
from patchprism.photos.framing import Framing
from patchprism.support.folders import LocalFolder

KINDS = 12


def write_store(path: Path, photos: Path, count: int, side: int, width: int) -> None:
    """Write a store of synthetic tokens, and small photos for it that differ only in their names."""
    record = replace(find_record("dinov2_vits14"), width=width)
    patch, rng = record.patch_size, np.random.default_rng(0)
    photos.mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (side * patch, side * patch, 3), np.uint8)).save(photos / "p.jpg")
    content = (photos / "p.jpg").read_bytes()
    (photos / "p.jpg").unlink()
    names = [str(photos / f"photo-{i:05d}.jpg") for i in range(count)]
    for name in names:
        Path(name).write_bytes(content)
    arrays = layout.specs(n_photos=count, n_patches=count * side**2, width=width, dtype="float16")
    folder = LocalFolder(path)
    pixels = side * patch
    tables: dict[str, Any] = {
        "offsets": np.arange(count + 1) * side**2,
        "grids": np.full((count, 2), side),
        "sizes": np.full((count, 2), pixels),
        "crops": np.tile([0.0, 0.0, pixels, pixels], (count, 1)),
    }
    kinds = rng.normal(size=(KINDS, width))
    for name, spec in arrays.items():
        folder.write(f"{name}/zarr.json", spec.metadata())
        for chunk in range(spec.n_chunks):
            start, stop = chunk * spec.chunks[0], min((chunk + 1) * spec.chunks[0], spec.shape[0])
            if name == "names":
                content = layout.encode_names(names[start:stop], spec.chunks[0])
            elif name == "tokens":
                rows = kinds[rng.integers(0, KINDS, stop - start)] + rng.normal(size=(stop - start, width))
                content = bytes(spec.encode(rows))
            else:
                content = bytes(spec.encode(tables[name][start:stop]))
            folder.write(spec.key(chunk), content)
    framing = Framing(size=pixels, patch_size=patch, mean=record.mean, std=record.std)
    origin = {
        "model": record.name,
        "weights_source": "made up",
        "weights_sha256": "0" * 64,
        "preset": "default",
        "framing": framing.to_dict(),
        "dtype": "float32",
    }
    head = {"version": layout.VERSION, "origin": origin, "model": asdict(record), "failures": []}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"patchprism": head}}
    folder.write("zarr.json", layout.dump(group))


def ask(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send a request to the server and return its JSON answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        address + "api" + path,
        data,
        {"Content-Type": "application/json"},
        method="GET" if body is None else "POST",
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def follow(address: str, session: str) -> float:
    """Seconds until a job is done."""
    start = time.perf_counter()
    while (job := ask(address, f"{session}/job"))["state"] not in ("done", "failed", "stopped"):
        time.sleep(0.02)
    assert job["state"] == "done", job
    return time.perf_counter() - start


def peak(process: int) -> float:
    """Peak resident memory of a process so far, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1e3 if found else float("nan")


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--keep", type=Path, help="folder to keep the store in for the next run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        store = folder / "f.zarr"
        if not store.exists():
            write_store(store, folder / "photos", options.photos, options.side, options.width)
        start = time.perf_counter()
        command = [sys.executable, "-m", "patchprism", "explore", str(store), "--no-open", "-q"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=name)
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            print(f"{options.photos:,} photos: open after {time.perf_counter() - start:.1f} s", end="")
            print(f", peak memory {peak(process.pid):.0f} MB")
            session = "/sessions/" + ask(address, "/sessions", {})["session"]
            mask = {"mask_threshold": 0.5, "mask_side": "above", "opening": 0, "closing": 0}
            for everywhere in (True, False):
                body = {"photo": 3, "patch": 5, "everywhere": everywhere, **mask}
                ask(address, f"{session}/search", body)
                seconds, found = follow(address, session), ask(address, f"{session}/search")
                where = "everywhere" if everywhere else "in the foreground"
                print(f"search {where}: {seconds:.1f} s, {len(found)} matches", end="")
                print(f", peak memory {peak(process.pid):.0f} MB")
            ask(address, f"{session}/shown", {"keep": [3], "find": "photo-00", "seed": 1})
            print(f"another sample: {follow(address, session):.1f} s, peak memory {peak(process.pid):.0f} MB")
        finally:
            process.terminate()
            process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"processor time of the server: {used.ru_utime + used.ru_stime:.1f} s")


if __name__ == "__main__":
    main()
