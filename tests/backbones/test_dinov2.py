"""DINOv2 compared with the implementation of transformers, and its position embedding with the formula."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from standin import fill, filled_state

from patchprism.backbones import WeightsOrigin, find_record, load_backbone, records
from patchprism.backbones.dinov2 import DinoV2Backbone, build, interpolate_positions, load

if TYPE_CHECKING:
    from pathlib import Path

    from patchprism.backbones import BackboneRecord

DINOV2 = [record for record in records() if record.family == "dinov2"]
# Deep enough for errors to accumulate, and small enough to be fast.
DEPTHS = {384: 6, 768: 3, 1024: 3, 1536: 2}


def reference(record: BackboneRecord) -> torch.nn.Module:
    """The network of transformers of the same shape, with random weights."""
    import transformers

    kind = "Dinov2WithRegisters" if record.prefix_tokens > 1 else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=record.width,
        num_hidden_layers=record.depth,
        num_attention_heads=record.heads,
        patch_size=14,
        image_size=518,
        use_swiglu_ffn=record.width == 1536,
    )
    with torch.device(
        "meta"
    ):  # otherwise, transformers would spend seconds on the initialisation of weights that are filled below
        model = getattr(transformers, f"{kind}Model")(config)
    model = model.to_empty(device="cpu").eval()
    fill(dict(model.named_parameters()))
    with torch.no_grad():
        for parameter in model.embeddings.parameters():
            parameter.mul_(0.02)  # small enough for LayerNorm's epsilon to matter
    return model


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def compare(record: BackboneRecord, folder: Path, sizes: list[tuple[int, int]], batch: int = 2) -> None:
    """Save the network of transformers in the hub's format, load that file, and compare the patch tokens."""
    model = reference(record)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    backbone = load(record, WeightsOrigin(source="test", path=str(path)), torch.device("cpu"), torch.float32)
    registers = record.prefix_tokens > 1
    table = load_file(path)["embeddings.position_embeddings"]

    def positions(embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        ours = interpolate_positions(table[0, 1:], height // 14, width // 14, registers=registers)
        return torch.cat([table[0, :1], ours])[None]

    # For other grids than the native one, transformers interpolates differently from the official code. It
    # therefore gets our position embedding, which has a separate test.
    model.embeddings.interpolate_pos_encoding = positions
    for height, width in sizes:
        pixels = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
        ours = backbone.patch_tokens(pixels)
        with torch.inference_mode():
            theirs = model(pixel_values=pixels).last_hidden_state[:, record.prefix_tokens :]
        assert ours.shape == (batch, height // 14, width // 14, record.width)
        # Relative to the differences between patches, because their common part would make any error look small.
        spread = theirs - theirs.mean(1, keepdim=True)
        error = float((ours.flatten(1, 2).double() - theirs.double()).norm() / spread.double().norm())
        print(f"{record.name}, depth {record.depth}, {height} x {width}: relative error {error:.1e}")
        assert error < 2e-5


@pytest.mark.parametrize("record", DINOV2, ids=lambda record: record.name)
def test_agrees_with_transformers(record: BackboneRecord, tmp_path: Path) -> None:
    shallow = dataclasses.replace(record, depth=DEPTHS[record.width])
    compare(shallow, tmp_path, [(140, 140), (98, 182), (14, 28)])


@pytest.mark.slow
@pytest.mark.parametrize("record", DINOV2, ids=lambda record: record.name)
def test_agrees_with_transformers_at_full_depth(record: BackboneRecord, tmp_path: Path) -> None:
    compare(record, tmp_path, [(518, 518), (252, 406)], batch=1)


@pytest.mark.parametrize("record", DINOV2, ids=lambda record: record.name)
def test_record_counts_the_parameters(record: BackboneRecord) -> None:
    network = build(record)
    assert sum(parameter.numel() for parameter in network.parameters()) == record.n_parameters
    assert record.n_parameters * 4 < record.download_bytes < record.n_parameters * 4 * 1.002


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_agrees_with_unchanged_transformers_at_the_native_size(name: str, tmp_path: Path) -> None:
    """At 518 x 518, nothing is interpolated, so transformers is compared without changes."""
    record = dataclasses.replace(find_record(name), depth=3)
    model = reference(record)
    model.save_pretrained(tmp_path)
    origin = WeightsOrigin(source="test", path=str(tmp_path / "model.safetensors"))
    backbone = load(record, origin, torch.device("cpu"), torch.float32)
    pixels = torch.randn(1, 3, 518, 518, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs = model(pixel_values=pixels).last_hidden_state[:, record.prefix_tokens :]
    assert relative_error(backbone.patch_tokens(pixels).flatten(1, 2), theirs) < 1e-5


def cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def plain_matrix(out: int, factor: float, n: int = 37) -> np.ndarray:
    """(out, n) weights of bicubic sampling with a = -0.75 at (i + 0.5) / factor - 0.5, borders repeated."""
    matrix = np.zeros((out, n))
    for i in range(out):
        x = (i + 0.5) / factor - 0.5
        for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            matrix[i, min(max(j, 0), n - 1)] += cubic(np.array(x - j), -0.75)
    return matrix


def antialiased_matrix(out: int, n: int = 37) -> np.ndarray:
    """(out, n) weights of antialiased bicubic (a = -0.5), widened when shrinking, normalised."""
    scale = n / out
    stretch = max(scale, 1.0)
    matrix = np.zeros((out, n))
    for i in range(out):
        centre = (i + 0.5) * scale
        lo, hi = max(int(centre - 2 * stretch + 0.5), 0), min(int(centre + 2 * stretch + 0.5), n)
        matrix[i, lo:hi] = cubic((np.arange(lo, hi) + 0.5 - centre) / stretch, -0.5)
    return matrix / matrix.sum(1, keepdims=True)


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("grid", [(32, 32), (37, 36), (16, 16), (20, 45), (64, 50), (1, 1), (1, 37), (74, 3)])
def test_position_embedding_follows_the_formula(grid: tuple[int, int], registers: bool) -> None:
    table = torch.randn(37 * 37, 8, generator=torch.Generator().manual_seed(0))
    h, w = grid
    if registers:
        rows, columns = antialiased_matrix(h), antialiased_matrix(w)
    else:
        rows, columns = plain_matrix(h, (h + 0.1) / 37), plain_matrix(w, (w + 0.1) / 37)
    expected = np.einsum("iy,jx,yxd->ijd", rows, columns, table.double().numpy().reshape(37, 37, 8))
    got = interpolate_positions(table, h, w, registers=registers)
    assert got.shape == (h * w, 8)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy().reshape(h, w, 8), expected, atol=3e-5)


@pytest.mark.parametrize("registers", [False, True])
def test_the_native_position_embedding_equals_the_checkpoints(registers: bool) -> None:
    table = torch.randn(37 * 37, 8)
    assert torch.equal(interpolate_positions(table, 37, 37, registers=registers), table)


@pytest.fixture(scope="module")
def small() -> DinoV2Backbone:
    record = dataclasses.replace(find_record("dinov2_vits14_reg"), depth=2)
    network = build(record)
    network.load_state_dict(filled_state(network), assign=True)
    origin = WeightsOrigin(source="test")
    return DinoV2Backbone(record, network, origin, torch.device("cpu"), torch.float32)


def test_positions_are_computed_once_per_grid_and_few_are_kept(
    small: DinoV2Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def counted(table: torch.Tensor, h: int, w: int, *, registers: bool) -> torch.Tensor:
        calls.append((h, w))
        return interpolate_positions(table, h, w, registers=registers)

    monkeypatch.setattr("patchprism.backbones.dinov2.interpolate_positions", counted)
    for h, w in [(2, 3), (3, 2), (2, 3), (2, 3)]:
        small.patch_tokens(torch.zeros(1, 3, 14 * h, 14 * w))
    assert calls == [(2, 3), (3, 2)]
    for w in range(1, 40):
        small.network.positions(1, w)
    assert len(small.network._positions) <= 16
    small.network.positions(1, 39)
    assert len(calls) == 2 + 39


def test_photos_of_a_batch_are_independent(small: DinoV2Backbone) -> None:
    pixels = torch.randn(3, 3, 70, 56, generator=torch.Generator().manual_seed(0))
    together = small.patch_tokens(pixels)
    for i in range(3):
        assert relative_error(together[i], small.patch_tokens(pixels[i : i + 1])[0]) < 1e-5


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_stays_near_float32(dtype: str, bound: float, small: DinoV2Backbone) -> None:
    network = build(small.record)
    network.load_state_dict({k: v.clone() for k, v in small.network.state_dict().items()}, assign=True)
    half = DinoV2Backbone(
        small.record, network, WeightsOrigin(source="test"), torch.device("cpu"), getattr(torch, dtype)
    )
    pixels = torch.randn(1, 3, 98, 70, generator=torch.Generator().manual_seed(0))
    tokens = half.patch_tokens(pixels)
    assert tokens.dtype == torch.float32
    assert 0 < relative_error(tokens, small.patch_tokens(pixels)) < bound


def test_both_layouts_and_formats_give_the_same_tokens(tmp_path: Path) -> None:
    record = find_record("dinov2_vits14")
    state = filled_state(build(record))
    torch.save(state, tmp_path / "official.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    pixels = torch.randn(1, 3, 56, 42, generator=torch.Generator().manual_seed(0))
    tokens = []
    for file in ("official.pth", "old.pth"):
        backbone = load_backbone(record.name, weights=tmp_path / file, device="cpu")
        assert backbone.weights.path == str(tmp_path / file)
        tokens.append(backbone.patch_tokens(pixels))
    assert torch.equal(tokens[0], tokens[1])


def test_the_reference_has_the_hubs_key_names(tmp_path: Path) -> None:
    """The reference must be saved with the hub's key names, otherwise nothing would be converted."""
    record = dataclasses.replace(find_record("dinov2_vitg14_reg"), depth=1)
    reference(record).save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "encoder.layer.0.attention.attention.query.weight" in names
    assert "encoder.layer.0.mlp.weights_in.weight" in names
    assert json.loads((tmp_path / "config.json").read_text())["image_size"] == 518
