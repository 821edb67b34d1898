"""`--layer` with one block and with several, in every command that computes tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
import skimage
import torch

import patchprism
from patchprism.features.options import TokenOptions
from patchprism.prism.estimator import Prism

MODEL = ("--model", "efficientnet_lite2", "--size", "96")


@pytest.fixture
def photo():
    return f"{next(iter(skimage.__path__))}/data/coffee.png"


@pytest.mark.parametrize("norm", ["none", "l2"])
def test_several_layers_are_concatenated(norm):
    backbone = patchprism.load_backbone("efficientnet_lite2")
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    together = TokenOptions(layer=(5, 20, -1), token_norm=norm).tokens(backbone, pixels)
    apart = [TokenOptions(layer=layer, token_norm=norm).tokens(backbone, pixels) for layer in (5, 20, -1)]
    torch.testing.assert_close(together, torch.cat(apart, dim=-1))


def test_a_prism_of_several_layers_sets_the_layers(run, photo, tmp_path):
    assert run("render", photo, "-o", tmp_path / "fit", *MODEL, "--layer", "9,-1", "--arrays", "-q").code == 0
    prism = tmp_path / "fit" / "prism.safetensors"
    assert Prism.load(prism).origin["layer"] == [9, -1]
    assert run("render", photo, "-o", tmp_path / "use", "--prism", prism, "--arrays", "-q").code == 0
    first, second = (np.load(tmp_path / folder / "coffee.npz")["rgb"] for folder in ("fit", "use"))
    np.testing.assert_array_equal(first, second)
    assert json.loads((tmp_path / "use" / "report.json").read_text())["settings"]["layer"] == [9, -1]
    one = run("render", photo, "-o", tmp_path / "no", "--prism", prism, "--layer", "9")
    assert one.code == 1
    assert "another layer: [9, -1], now 9" in one.err


def test_fit_and_features_take_several_layers(run, photo, tmp_path):
    out = tmp_path / "several.prism"
    assert run("fit", photo, "-o", out, *MODEL, "--layer=5,9", "-q").code == 0
    assert run("features", photo, "-o", tmp_path / "f.zarr", *MODEL, "--layer=5,9", "-q").code == 0
    stored = run("fit", tmp_path / "f.zarr", "-o", tmp_path / "stored.prism", "-q")
    assert stored.code == 0, stored.err
    ours, theirs = Prism.load(out), Prism.load(tmp_path / "stored.prism")
    assert ours.origin["layer"] == theirs.origin["layer"] == [5, 9]
    # The store has float16.
    np.testing.assert_allclose(ours.object_components_[:2], theirs.object_components_[:2], atol=0.02)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("last", "layer must be a number or several like 2,5,8,11, got 'last'"),
        ("2,,5", "layer must be a number or several like 2,5,8,11, got '2,,5'"),
        ("2,99", "efficientnet_lite2 has no layer 99"),
    ],
)
def test_missing_layers_are_named(run, photo, tmp_path, layers, words):
    result = run("render", photo, "-o", tmp_path / "out", *MODEL, "--layer", layers)
    assert result.code == 1
    assert words in result.err
    assert not (tmp_path / "out").exists()


def test_attention_needs_one_layer(run, photo, tmp_path):
    result = run("render", photo, "-o", tmp_path / "out", *MODEL, "--layer", "2,5", "--lens", "attention")
    assert result.code == 1
    assert result.err == "error: the lens attention needs a single layer, got --layer 2,5\n"


def test_the_explorers_command_contains_the_layers(photo):
    from patchprism.explorer.build import build_message

    view = patchprism.visualize([photo], model="efficientnet_lite2", size=96, layer=(9, -1))
    assert ["--layer=9,-1"] in build_message(view).header["command"]["options"]
