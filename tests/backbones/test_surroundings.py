"""Settings of torch in the user's program do not change tokens or their records, and are not changed."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from standin import filled_state
from timm_here import import_timm
from tiny import PATCH, build, save

import patchprism
from patchprism.backbones import Backbone, find_record, load_backbone
from patchprism.backbones.dinov2 import build as build_dinov2
from patchprism.features.options import TokenOptions
from patchprism.photos.framing import Framing
from patchprism.support.surroundings import own_settings


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == dtype
        torch.set_default_dtype(before)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        assert torch.empty(0).device.type == device
        torch.set_default_device(None)


@contextmanager
def precision(name):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        assert torch.get_float32_matmul_precision() == name
        torch.set_float32_matmul_precision(before)


@contextmanager
def autocast(dtype):
    with torch.autocast("cpu", dtype=dtype):
        yield
        assert torch.is_autocast_enabled("cpu")
        ones = torch.ones(2, 2, device="cpu", dtype=torch.float32)
        assert (ones @ ones).dtype == dtype


@contextmanager
def in_mode(mode):
    with mode:
        before = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        yield
        assert before == (torch.is_inference_mode_enabled(), torch.is_grad_enabled())


SURROUNDINGS = {
    "autocast bfloat16": lambda: autocast(torch.bfloat16),
    "autocast float16": lambda: autocast(torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: default_device("meta"),
    "inference": lambda: in_mode(torch.inference_mode()),
    "no_grad": lambda: in_mode(torch.no_grad()),
    "enable_grad": lambda: in_mode(torch.enable_grad()),
    "medium": lambda: precision("medium"),
    "high": lambda: precision("high"),
}


def products(pixels):
    """A custom network with operations that autocast changes, and a tensor of the default dtype and device."""
    tokens = pixels[:, :, ::8, ::8].permute(0, 2, 3, 1)
    return torch.nn.functional.layer_norm(tokens @ torch.linspace(0, 1, 18).reshape(3, 6), (6,))


def own():
    return Backbone.from_callable(products, patch_size=PATCH, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def hub_name(tmp_path_factory):
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("dinov2")
    return save(build("dinov2"), folder)


@pytest.fixture(scope="module")
def timm_name(tmp_path_factory):
    timm = import_timm()
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("timm") / "weights.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).state_dict(), weights)
    return "timm:vit_tiny_patch16_224", {"weights": str(weights)}


def all_of(backbone, pixels):
    found = [
        backbone.patch_tokens(pixels),
        *backbone.layer_tokens(pixels, [0, -1]),
        TokenOptions(token_norm="l2").tokens(backbone, pixels),
    ]
    if backbone.has_attention:
        found += [backbone.attention(pixels), backbone.rollout(pixels), backbone.rollout(pixels, (0, 1))]
    assert all(each.dtype == torch.float32 and each.device.type == "cpu" for each in found)
    return [each.numpy().copy() for each in found]


@pytest.mark.parametrize("kind", ["callable", "efficientnet_lite2", "hf", "timm"])
def test_tokens_do_not_depend_on_the_surroundings(kind, request):
    name, options = kind, {}
    if kind == "hf":
        name = request.getfixturevalue("hub_name")
    elif kind == "timm":
        name, options = request.getfixturevalue("timm_name")

    def load():
        return own() if kind == "callable" else load_backbone(name, **options)

    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 4 * 16, 6 * 16)
    loaded = load()
    expected = all_of(loaded, pixels)
    for what, surround in SURROUNDINGS.items():
        with surround():
            inside = load()  # parameters that are created inside must be the same
            assert (inside.dtype, inside.device) == (loaded.dtype, loaded.device), what
            found = [all_of(loaded, pixels), all_of(inside, pixels)]
        found.append(all_of(inside, pixels))
        for each in found:
            for a, b in zip(expected, each, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=what)


def test_dinov2_does_not_depend_on_the_surroundings(tmp_path):
    with torch.device("meta"):
        network = build_dinov2(find_record("dinov2_vits14"))
    path = tmp_path / "standin.pth"
    torch.save(filled_state(network), path)
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 28, 42)
    expected = all_of(load_backbone("dinov2_vits14", weights=path), pixels)
    with default_dtype(torch.bfloat16), autocast(torch.bfloat16), default_device("meta"):
        found = all_of(load_backbone("dinov2_vits14", weights=path), pixels)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("what", ["autocast bfloat16", "float64", "meta", "inference", "medium"])
def test_views_and_framing_and_pca_do_not_depend_on_the_surroundings(what):
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    framing = Framing.preset("default", size=32, patch_size=PATCH, mean=(0.4,) * 3, std=(0.3,) * 3)
    framed = framing.apply(photo)
    plain = patchprism.visualize([photo], backbone=own(), size=32, foreground="none")
    rows = torch.from_numpy(plain.features[0].reshape(-1, 6).copy())
    pca = patchprism.StreamingPCA(2).fit(rows)
    places = pca.transform(rows).numpy()
    with SURROUNDINGS[what]():
        again = framing.apply(photo)
        view = patchprism.visualize([photo], backbone=own(), size=32, foreground="none")
        inside = patchprism.StreamingPCA(2).fit(rows).transform(rows)
    assert again.pixels.dtype == torch.float32
    np.testing.assert_array_equal(again.pixels.numpy(), framed.pixels.numpy())
    np.testing.assert_array_equal(view.features[0], plain.features[0])
    np.testing.assert_array_equal(view.colors[0], plain.colors[0])
    assert view.origin == plain.origin
    assert {**view.settings} == {**plain.settings}
    np.testing.assert_array_equal(inside.numpy(), places)


def test_settings_are_restored_after_a_failure():
    def fails(pixels):
        raise ZeroDivisionError

    backbone = Backbone.from_callable(fails, patch_size=PATCH, mean=(0.5,) * 3, std=(0.5,) * 3)
    with default_dtype(torch.float64), precision("medium"), autocast(torch.bfloat16), default_device("meta"):
        with pytest.raises(ZeroDivisionError):
            backbone.patch_tokens(torch.zeros(1, 3, 8, 8, device="cpu", dtype=torch.float32))
        assert (torch.get_default_dtype(), torch.get_float32_matmul_precision()) == (torch.float64, "medium")
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="an older torch")
def test_the_newer_settings_of_precision_are_suspended_and_restored():
    backends = torch.backends
    before = backends.fp32_precision
    backends.fp32_precision = "tf32"
    backends.mkldnn.matmul.fp32_precision = backends.cuda.matmul.fp32_precision = "none"
    try:
        with own_settings():
            assert backends.cuda.matmul.fp32_precision == backends.mkldnn.matmul.fp32_precision == "ieee"
        assert backends.mkldnn.matmul.fp32_precision == "tf32"
        backends.fp32_precision = "ieee"
        assert backends.mkldnn.matmul.fp32_precision == "ieee"
    finally:
        backends.fp32_precision = before
