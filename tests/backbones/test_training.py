"""A probe can be trained on tokens of every origin, in every mode of autograd."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import patchprism
from patchprism.backbones import Backbone, load_backbone


@torch.inference_mode()
def in_inference_mode(pixels):
    return torch.nn.functional.avg_pool2d(pixels, 8).permute(0, 2, 3, 1)


def with_parameters():
    network = torch.nn.Conv2d(3, 5, 8, stride=8)

    @torch.enable_grad()
    def fn(pixels):
        return network(pixels).permute(0, 2, 3, 1)

    return fn


def own(fn):
    return Backbone.from_callable(fn, patch_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)


BACKBONES = {
    "efficientnet_lite2": lambda: load_backbone("efficientnet_lite2"),
    "a function in inference mode": lambda: own(in_inference_mode),
    "a function with gradients": lambda: own(with_parameters()),
}


def train(tokens):
    """Losses of a linear probe that learns to distinguish the rows of the grid."""
    assert not tokens.requires_grad
    torch.manual_seed(0)
    rows = tokens.reshape(-1, tokens.shape[-1])
    targets = torch.arange(len(rows)) % 2
    probe = torch.nn.Linear(rows.shape[1], 2)
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(probe(rows), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert probe.weight.grad is not None
    assert bool(probe.weight.grad.abs().sum() > 0)
    return losses


@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode], ids=["plain", "inference"])
@pytest.mark.parametrize("kind", BACKBONES)
def test_a_probe_is_trained_on_tokens_of_a_backbone(kind, mode):
    backbone = BACKBONES[kind]()
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 64, 96)
    with mode():
        tokens = backbone.patch_tokens(pixels)
    losses = train(tokens)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode], ids=["plain", "inference"])
def test_a_probe_is_trained_on_tokens_of_extract(mode):
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with mode():
        features = patchprism.extract([photo], "efficientnet_lite2", size=64)
    losses = train(torch.as_tensor(features[0]))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "mode", [nullcontext, torch.enable_grad, torch.inference_mode], ids=["plain", "grad", "inference"]
)
def test_no_gradients_are_recorded_while_tokens_are_made(mode):
    seen = []

    def fn(pixels):
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return torch.nn.functional.avg_pool2d(pixels, 8).permute(0, 2, 3, 1)

    with mode():
        own(fn).patch_tokens(torch.randn(1, 3, 16, 16, requires_grad=True))
    assert seen == [(False, False)]
