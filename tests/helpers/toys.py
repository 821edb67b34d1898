"""A backbone that needs no weights, photos to go with it, and an engine that loses workers on purpose."""

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
    """A fixed linear map of every patch's pixels, bent; small, but of the shape of the real ones."""

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
    """Photos of discs on a ground, of several shapes, no two alike."""
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
    """Every file below a folder with its bytes; of a report all but the seconds, which are this run's."""
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
    """Reads photos; one whose name says so takes the whole process with it, as a decoder's fault would."""
    if "deadly" in name:
        if os.environ.get("PATCHPRISM_TEST_PARENT") == str(os.getpid()):
            raise Died
        os._exit(1)
    return read_source(name)


class Died(BaseException):
    """A worker of the fake engine is dead."""


class Square:
    """A task: squares, and an error for thirteen."""

    needs_device = False

    def run(self, items):
        for item in items:
            if item == 13:
                raise PhotoError("13", "brings bad luck")
            yield item * item


class Suicide:
    """A task: the worker that has the item 3 dies."""

    needs_device = False

    def run(self, items):
        for item in items:
            if item == 3:
                if os.environ.get("PATCHPRISM_TEST_PARENT") == str(os.getpid()):
                    raise Died
                os._exit(1)
            yield -item


def slow_reader(name):
    """Says where it is read, and takes its time."""
    Path(name).with_suffix(f".{os.getpid()}.pid").touch()
    time.sleep(0.05)
    return read_source(name)


class FakeEngine:
    """Runs tasks in this process as a cluster would: on copies, in any order, and its workers die.

    Parameters
    ----------
    seed : int
    deaths : int
        How many times a worker dies, at random.
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
    """What a worker gets: a copy without what was made in another one."""
    made = copy.copy(task)
    if hasattr(made, "_backbone"):
        made._backbone = None
    return made


def make_cell(model, layer, features, crops, prism):
    """A cell of a comparison from features: the prism is fitted on them."""
    prism.fit(features)
    cell = CompareCell(model=model, layer=layer, prism=prism)
    cell.add(zip(features.names, features, crops, strict=True))
    return cell
