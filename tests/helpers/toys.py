"""A backbone that needs no weights, photos for it, and an engine that loses workers on purpose."""

from __future__ import annotations

import copy
import os
import pickle
import random
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from patchprism.backbones import Backbone, BackboneRecord, WeightsOrigin, find_record
from patchprism.errors import PhotoError
from patchprism.jobs.engines import WorkerLost
from patchprism.lenses.turning import CompareCell
from patchprism.photos.sources import read_source

PATCH, WIDTH = 8, 24

RECORD = BackboneRecord(
    name="toy",
    family="toy",
    patch_size=PATCH,
    width=WIDTH,
    depth=1,
    heads=1,
    prefix_tokens=0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    n_parameters=3 * PATCH * PATCH * WIDTH,
    licence="CC0-1.0",
    source="tests",
)


class Toy(Backbone):
    """A small backbone with real shapes: a fixed linear map of every patch's pixels, and a nonlinearity."""

    def __init__(self):
        self.record = RECORD
        self.weights = WeightsOrigin(source="tests", sha256="0" * 64)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        generator = torch.Generator().manual_seed(7)
        self.matrix = torch.randn(WIDTH, 3, PATCH, PATCH, generator=generator) / 12

    def _layers(self, pixels, layers, facet, norm):
        mapped = torch.nn.functional.conv2d(pixels, self.matrix, stride=PATCH)
        return dict.fromkeys(layers, torch.tanh(mapped).permute(0, 2, 3, 1))


def tiny_transformer():
    """A DINOv2 of two small blocks with random weights."""
    from patchprism.backbones.dinov2 import DinoV2Backbone, build

    record = replace(find_record("dinov2_vits14_reg"), name="tiny", width=24, depth=2, heads=3)
    torch.manual_seed(0)
    network = build(record).to_empty(device="cpu")
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return DinoV2Backbone(record, network, WeightsOrigin(source="random"), torch.device("cpu"), torch.float32)


def make_photos(folder: Path, count: int, *, shapes=((48, 64), (64, 48), (40, 40))) -> Path:
    """Write photos of discs on a background, all different and of several shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    for i in range(count):
        h, w = shapes[i % len(shapes)]
        y, x = np.mgrid[:h, :w]
        cy, cx = rng.uniform(0.35, 0.65, 2)
        disc = ((y / h - cy) ** 2 + (x / w - cx) ** 2 < 0.07)[..., None]
        photo = np.where(disc, [230, 120, 20], [40, 90, 160]) + rng.integers(0, 50, (h, w, 3))
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / f"p{i:04d}.png")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their bytes, and reports without their seconds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "report.json":
                import json

                content = json.dumps(json.loads(content) | {"seconds": None}).encode()
            found[str(path.relative_to(folder))] = content
    return found


def deadly_reader(name):
    """Read a photo; some names kill the process, like a crash of a decoder."""
    if "deadly" in name:
        if os.environ.get("PATCHPRISM_TEST_PARENT") == str(os.getpid()):
            raise Died
        os._exit(1)
    return read_source(name)


class Died(BaseException):
    """A worker of the fake engine is dead."""


class Square:
    """A task that squares numbers, and fails for thirteen."""

    needs_device = False

    def run(self, items):
        for item in items:
            if item == 13:
                raise PhotoError("13", "brings bad luck")
            yield item * item


class DiesOfThree:
    """A task whose worker dies of the item 3."""

    needs_device = False

    def run(self, items):
        for item in items:
            if item == 3:
                if os.environ.get("PATCHPRISM_TEST_PARENT") == str(os.getpid()):
                    raise Died
                os._exit(1)
            yield -item


def slow_reader(name):
    """Read a photo slowly, and report the process."""
    Path(name).with_suffix(f".{os.getpid()}.pid").touch()
    time.sleep(0.05)
    return read_source(name)


class FakeEngine:
    """Runs tasks in this process like a cluster: on copies, in random order, with workers that die.

    Parameters
    ----------
    seed : int
    deaths : int
        How many times a worker dies, at random moments.
    """

    name = "fake"
    local = False

    def __init__(self, seed=0, deaths=0):
        self.random, self.deaths = random.Random(seed), deaths

    def map(self, task, items, *, attempts=3):
        task = copied(task)
        todo, waiting = iter(items), deque()
        while True:
            while len(waiting) < 4 and (item := next(todo, self)) is not self:
                waiting.append((item, 0))
            if not waiting:
                return
            waiting.rotate(self.random.randrange(len(waiting)))
            item, tried = waiting.popleft()
            try:
                if self.deaths and self.random.random() < 0.5:
                    self.deaths -= 1
                    raise Died
                (result,) = list(task.run(iter([item])))
            except Died:
                task = copied(task)
                if tried + 1 < attempts:
                    waiting.append((item, tried + 1))
                else:
                    yield item, WorkerLost("it died")
            else:
                yield item, pickle.loads(pickle.dumps(result)) if not hasattr(result, "prism") else result

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def copied(task):
    """What a worker gets: a copy without the objects that are created per process."""
    made = copy.copy(task)
    if hasattr(made, "_backbone"):
        made._backbone = None
    return made


def make_cell(model, layer, features, crops, prism):
    """A cell of a comparison, with a prism that is fitted on the features."""
    prism.fit(features)
    cell = CompareCell(model=model, layer=layer, prism=prism)
    cell.add(zip(features.names, features, crops, strict=True))
    return cell
