"""Overlapping patches, refined tokens and tiles: positions of their cells, and records of these options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import Toy, make_photos, tiny_transformer

import patchprism
from patchprism.backbones.dinov2 import interpolate_positions
from patchprism.errors import OptionError, PrismError
from patchprism.features import tiles
from patchprism.features.extraction import tokens_of
from patchprism.features.options import TokenOptions
from patchprism.features.tiles import tiled
from patchprism.jobs import settings as settings_module
from patchprism.jobs.figures import origin_of
from patchprism.photos.framing import Framing
from patchprism.pictures.upsample import upsample

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture(scope="module")
def vit():
    return tiny_transformer()


@pytest.fixture
def photos(tmp_path):
    return [str(path) for path in sorted(make_photos(tmp_path / "p", 3).iterdir())]


def patch_means(framed, patch):
    """Mean of each patch, (h, w, 3)."""
    _, height, width = framed.pixels.shape
    blocks = framed.pixels.reshape(3, height // patch, patch, width // patch, patch)
    return blocks.mean(dim=(2, 4)).permute(1, 2, 0).numpy()


# ---------------------------------------------------------------- overlapping patches


@pytest.mark.parametrize(("patch", "stride"), [(14, 7), (14, 2), (14, 1), (16, 8), (16, 4)])
def test_overlapping_patches_are_centred_on_their_cells(patch, stride):
    y, x = np.mgrid[: 5 * patch, : 6 * patch] * 2 + 1
    photo = np.stack([y, x, np.full_like(x, 9)], axis=-1).astype(np.uint8)
    framing = Framing(size=5 * patch, patch_size=patch, stride=stride, **PLAIN)
    framed = framing.apply(photo)
    rows, columns = framing.grid(*photo.shape[:2])
    assert framed.grid == (rows, columns) == (5 * patch // stride, 6 * patch // stride)
    assert framed.crop == (0, 0, 6 * patch, 5 * patch)
    assert framed.shown.shape == photo.shape
    found = patch_means(framed, patch) * 255
    inner = slice(patch // stride, -(patch // stride))  # patches that are completely inside the photo
    middles = (np.arange(columns) + 0.5) * stride * 2  # middles of the cells, as values of the ramp
    np.testing.assert_allclose(
        found[inner, inner, 1], np.tile(middles[inner], (rows - 2 * patch // stride, 1)), atol=0.02
    )
    middles = (np.arange(rows) + 0.5) * stride * 2
    np.testing.assert_allclose(
        found[inner, inner, 0], np.tile(middles[inner, None], (1, columns - 2 * patch // stride)), atol=0.02
    )


@pytest.mark.parametrize("stride", [None, 7, 2])
def test_an_edge_stays_where_the_photo_has_it(stride):
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[:, 217:] = 255
    framed = Framing(size=140, patch_size=14, stride=stride, **PLAIN).apply(photo)
    values = patch_means(framed, 14)
    found = upsample(values, crop=framed.crop, size=(300, 400), method="bilinear")[..., 0]
    edges = np.argmax(found > 0.5, axis=1)[5:-5]
    cell = 30 / (14 / (stride or 14))  # in the photo's pixels
    assert np.abs(edges - 217).max() <= cell / 4 + 1


def test_the_network_gets_the_patches_of_a_convolution_with_this_stride(vit):
    """As in Amir et al. (2021): the patch embedding uses the stride, positions are interpolated to the finer grid."""
    photo = np.random.default_rng(0).integers(0, 256, (56, 70, 3), dtype=np.uint8)
    plain, strided = (vit.framing(size=56, stride=stride).apply(photo) for stride in (None, 2))
    network, proj = vit.network, vit.network.patch_embed.proj
    padded = torch.nn.functional.pad(plain.pixels[None], (6, 6, 6, 6), mode="reflect")
    patches = torch.nn.functional.conv2d(padded, proj.weight, proj.bias, stride=2)
    assert patches.shape[2:] == strided.grid == (28, 35)
    patches = patches.flatten(2).transpose(1, 2)
    patches += interpolate_positions(network.pos_embed[0, 1:], 28, 35, registers=True)
    first = torch.cat([network.cls_token + network.pos_embed[:, :1], network.register_tokens], dim=1)
    expected = torch.cat([first, patches], dim=1)
    for block in network.blocks:
        expected = block(expected)
    expected = network.norm(expected[:, 5:]).reshape(1, 28, 35, -1)
    torch.testing.assert_close(vit.patch_tokens(strided.pixels[None]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "stride", "message"),
    [
        ("efficientnet_lite2", 8, "stride cannot be used with efficientnet_lite2"),
        (Toy(), 4, "stride cannot be used with toy"),
        ("vit", 5, r"stride must divide the patch size 14 \(1, 2, 7\), got 5"),
        ("vit", 28, r"stride must divide the patch size 14 \(1, 2, 7\), got 28"),
        ("vit", 0, "stride must be"),
        ("vit", 3.5, "stride must be"),
    ],
)
def test_strides_that_are_refused(photos, vit, backbone, stride, message):
    with pytest.raises(OptionError, match=message):
        patchprism.extract(photos, vit if backbone == "vit" else backbone, size=56, stride=stride)


def test_a_grid_that_is_finer_than_the_pixels_is_refused(photos, vit):
    with pytest.raises(
        OptionError, match="refine 4 with stride=2 makes a grid that is finer than the pixels"
    ):
        patchprism.extract(photos, vit, size=56, stride=2, refine=4)
    assert patchprism.extract(photos[:1], vit, size=56, stride=2, refine=2)[0].shape[:2] == (56, 70)


def test_prisms_and_framings_record_the_stride(photos, vit):
    view = patchprism.visualize(photos, backbone=vit, size=56, stride=7)
    assert view.features.grids[0] == view.parts[0].score.shape == (8, 10)
    assert view.framing.to_dict()["stride"] == 7
    assert Framing.from_dict(view.framing.to_dict()) == view.framing
    with pytest.raises(PrismError, match=r"another framing \(stride\): 7, now 14"):
        patchprism.visualize(photos, backbone=vit, size=56, stride=14, prism=view.prism)
    again = patchprism.visualize(photos, backbone=vit, prism=view.prism)  # the prism sets the stride
    np.testing.assert_array_equal(again.parts[0].rgb, view.parts[0].rgb)
    assert "tokens of the last layer, stride 7." in origin_of(view._colored().opened, 2, 160)
    # A stride of the patch size means no overlap, and gives the same framing as without a stride.
    plain = vit.framing(size=56, stride=14)
    assert plain == vit.framing(size=56)
    assert "stride" not in plain.to_dict()


# ---------------------------------------------------------------- refined tokens


def test_refined_tokens_work_in_every_job(photos, vit, tmp_path):
    options = {"size": 56, "refine": 2}
    features = patchprism.extract(photos, vit, **options)
    plain = patchprism.extract(photos, vit, size=56)
    assert features.origin["refine"] == 2
    assert "refine" not in plain.origin
    for fine, coarse in zip(features, plain, strict=True):
        assert fine.shape[:2] == (2 * coarse.shape[0], 2 * coarse.shape[1])
        assert fine.min() >= coarse.min()
        assert fine.max() <= coarse.max()
    view = patchprism.visualize(photos, backbone=vit, **options)
    np.testing.assert_array_equal(view.features[1], features[1])
    view.save(tmp_path / "out", arrays=True, masks="png")
    with np.load(tmp_path / "out/p0000.npz") as arrays:
        assert arrays["score"].shape == features.grids[0]
    with pytest.raises(PrismError, match="another refine: 2, now 1"):
        patchprism.visualize(photos, backbone=vit, size=56, refine=1, prism=view.prism)


def test_refined_tokens_follow_the_photos_edge():
    """Each token says on which side of the edge its patch mostly is; the edge is inside a patch."""
    photo = np.full((64, 64, 3), 30, np.uint8)
    photo[:, 27:] = 220
    framed = Framing(size=64, patch_size=8, **PLAIN).apply(photo)
    (found,) = tokens_of(Toy(), [framed], TokenOptions(refine=4))
    (plain,) = tokens_of(Toy(), [framed], TokenOptions())
    assert found.shape == (32, 32, plain.shape[2])
    # With cells of 2 pixels, the edge is in the 14th; its neighbours equal the background and the object.
    np.testing.assert_allclose(found[4:-4, 11], np.broadcast_to(plain[4, 1], (24, plain.shape[2])), atol=0.02)
    np.testing.assert_allclose(found[4:-4, 15], np.broadcast_to(plain[4, 5], (24, plain.shape[2])), atol=0.02)


# ---------------------------------------------------------------- tiles


def own_means(pixels):
    """A network whose tokens depend only on their own patch."""
    return torch.nn.functional.avg_pool2d(pixels, 4).permute(0, 2, 3, 1)


def with_offset(pixels):
    """A network whose tokens depend on all its pixels."""
    return own_means(pixels) + pixels.mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def ramp():
    y, x = np.mgrid[:160, :200]
    return torch.from_numpy(np.stack([y, x, x * y / 200]).astype(np.float32) / 200)


@pytest.mark.parametrize(("height", "width"), [(160, 200), (40, 200), (160, 24), (36, 40), (160, 4)])
def test_tiles_of_independent_patches_equal_the_whole_photo(ramp, height, width):
    pixels = ramp[:, :height, :width]
    seen = []

    def network(batch):
        seen.append(batch.shape)
        return own_means(batch)

    found = tiled(pixels, network, patch=4, side=8, at_once=3)
    whole = own_means(pixels[None])[0].numpy()
    assert found.shape == whole.shape
    np.testing.assert_allclose(found, whole, atol=0.02)
    # The network saw only windows, never the complete photo.
    assert max(shape[2] for shape in seen[:-1]) <= 32
    assert max(shape[0] for shape in seen) <= 3
    assert seen[-1][2] * seen[-1][3] <= 1.5 * 32 * 32 or min(height, width) < 32


def test_no_seams_where_windows_see_different_things(ramp, monkeypatch):
    whole = with_offset(ramp[None])[0].numpy()
    found = tiled(ramp, with_offset, patch=4, side=16)
    steps, expected = np.abs(np.diff(found, axis=1)), np.abs(np.diff(whole, axis=1))
    assert steps.max() < 2.2 * expected.max()
    np.testing.assert_allclose(found, whole, atol=0.05)
    # Without the pass over the whole photo, the offsets of windows remain; without blending, there are seams.
    monkeypatch.setattr(tiles, "_take_coarse", lambda tokens, whole: None)
    assert np.abs(tiled(ramp, with_offset, patch=4, side=16) - whole).max() > 0.2
    monkeypatch.setattr(tiles, "OVERLAP", 0.0)
    monkeypatch.setattr(tiles, "_ramp", lambda side, length: np.ones(side, np.float32))
    assert np.abs(np.diff(tiled(ramp, with_offset, patch=4, side=16), axis=1)).max() > 4 * expected.max()


def test_only_photos_larger_than_a_tile_are_cut(photos, vit):
    whole = patchprism.extract(photos, vit, size=112)
    large = patchprism.extract(photos, vit, size=112, tile=1000)
    cut = patchprism.extract(photos, vit, size=112, tile=56, stride=7)
    assert cut.grids == [(2 * h, 2 * w) for h, w in whole.grids]
    assert large.origin["tile"] == 1000
    for first, second in zip(whole, large, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_photo_too_large_for_the_memory_is_cut_into_tiles(vit, monkeypatch):
    photo = np.random.default_rng(0).integers(0, 256, (1400, 900, 3), dtype=np.uint8)
    monkeypatch.setattr(settings_module, "DEFAULT_TILE", 224)
    monkeypatch.setattr(settings_module, "free_memory", lambda: 15_000_000)
    view = patchprism.visualize([photo], backbone=vit, size=896, device="cpu")
    assert view.origin["tile"] == 224
    assert view.settings["tile"] == 224
    assert view.features.grids == [(100, 64)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refine": 3}, "refine must be 1, 2, 4 or 8, got 3"),
        ({"refine": "fine"}, "refine must be"),
        ({"tile": 8}, "tile must be"),
        ({"tile": float("nan")}, "tile must be"),
    ],
)
def test_options_that_are_refused(photos, vit, options, message):
    with pytest.raises(OptionError, match=message):
        patchprism.extract(photos, vit, size=56, **options)


def test_masks_teach_refined_tokens_and_overlapping_patches(photos, vit):
    features = patchprism.extract(photos, vit, size=56, refine=2, stride=7)
    masks = []
    for path in photos:
        photo = patchprism.read_photo(path)
        masks.append(photo[..., 0] > photo[..., 2])
    head = patchprism.Head().fit(features, masks)
    assert head.origin["refine"] == 2
    with pytest.raises(patchprism.errors.PatchPrismError, match="its mask of 150 x 40 has another shape"):
        patchprism.Head().fit(features, [np.ones((40, 150), bool), *masks[1:]])
