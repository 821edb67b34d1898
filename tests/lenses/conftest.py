"""Views for lens tests, with constructed features, so that the right result is known."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import tiny_transformer

import patchprism
from patchprism.backbones import Backbone

PATCH = 8


def block_tokens(pixels):
    """(B, 3, H, W) -> patch means and their squares: a network that needs no weights."""
    means = torch.nn.functional.avg_pool2d(pixels, PATCH).permute(0, 2, 3, 1)
    return torch.cat([means, means**2, means.prod(dim=-1, keepdim=True)], dim=-1)


def block_backbone(name="blocks"):
    return Backbone.from_callable(block_tokens, patch_size=PATCH, mean=(0.5,) * 3, std=(0.5,) * 3, name=name)


@pytest.fixture(scope="module")
def transformer():
    """A DINOv2 of two small blocks with random weights."""
    return tiny_transformer()


def colored_photo(seed, shape=(6, 8)):
    """Patches of 8 x 8 pixels, each of one colour: a red-and-blue object on green ground."""
    rng = np.random.default_rng(seed)
    cells = np.empty((*shape, 3))
    cells[:] = (30, 150, 40)
    cells[1:-1, 2:5] = (200, 40, 30)
    cells[2:4, 5:7] = (40, 50, 210)
    cells = (cells + rng.normal(0, 4, cells.shape)).clip(0, 255).astype(np.uint8)
    return cells.repeat(PATCH, axis=0).repeat(PATCH, axis=1)


@pytest.fixture
def photos():
    return [colored_photo(seed) for seed in range(3)]


@pytest.fixture
def view(photos):
    """Three photos whose framing keeps every pixel, so that patch (r, c) is the photo's cell (r, c)."""
    return patchprism.visualize(photos, backbone=block_backbone(), size=48)


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs ``patchprism ARGS`` as a shell would: exit code, out, err."""
    from patchprism.cli import main

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["patchprism", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call
