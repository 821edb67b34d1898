"""Packed linear layers give what torch's own give, and are only packed where that can be."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
from standin import filled_state

from patchprism.backbones import WeightsOrigin, find_record, linear
from patchprism.backbones.dinov2 import DinoV2Backbone, build
from patchprism.backbones.linear import Linear, pack_linears

needs_packing = pytest.mark.skipif(
    not linear._operators_work(), reason="this torch or processor does not support packed layers"
)


def backbone(dtype: torch.dtype = torch.float32) -> DinoV2Backbone:
    network = build(dataclasses.replace(find_record("dinov2_vits14"), depth=2))
    network.load_state_dict(filled_state(network), assign=True)
    origin = WeightsOrigin(source="test")
    return DinoV2Backbone(find_record("dinov2_vits14"), network, origin, torch.device("cpu"), dtype)


@needs_packing
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("shape", [(2, 5, 24), (7, 24), (1, 24), (0, 24)])
def test_a_packed_layer_gives_what_it_gave(activation: linear.Activation, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Linear(24, 40)
    x = torch.randn(shape, generator=generator)
    with torch.inference_mode():
        before = layer(x, activation)
        weight = layer.weight.clone()
        layer.pack()
        after = layer(x, activation)
    assert layer.weight.is_mkldnn
    assert after.shape == before.shape == (*shape[:-1], 40)
    torch.testing.assert_close(after, before, rtol=0, atol=3e-6)
    assert torch.equal(layer.state_dict()["weight"], weight)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_can_be_copied_pickled_and_moved(dtype: torch.dtype) -> None:
    if not linear._operators_work(dtype):
        pytest.skip("this processor does not support packed layers in bfloat16")
    layer = Linear(24, 40, dtype=dtype).requires_grad_(False)
    weight = layer.weight.clone()
    layer.pack()
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied.weight, weight)
    assert layer.weight.is_mkldnn  # a copy leaves it as it was
    assert torch.equal(layer.double().weight, weight.double())


@needs_packing
def test_tokens_are_those_of_the_usual_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randn(2, 3, 70, 98, generator=torch.Generator().manual_seed(0))
    packed = backbone()
    assert any(isinstance(layer, Linear) and layer.weight.is_mkldnn for layer in packed.network.modules())
    monkeypatch.setattr(linear, "_operators_work", lambda dtype: False)
    usual = backbone()
    assert not any(parameter.is_mkldnn for parameter in usual.network.parameters())
    ours, theirs = packed.patch_tokens(pixels), usual.patch_tokens(pixels)
    assert not torch.equal(ours, theirs)  # else nothing was compared
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5
    for facet in ("query", "key", "value"):
        ours, theirs = (each.patch_tokens(pixels, layer=1, facet=facet) for each in (packed, usual))
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5
    assert {k: v.shape for k, v in packed.network.state_dict().items()} == {
        k: v.shape for k, v in usual.network.state_dict().items()
    }


needs_bfloat16 = pytest.mark.skipif(
    not linear._operators_work(torch.bfloat16), reason="this torch or processor has no bfloat16 products"
)


@needs_bfloat16
def test_bfloat16_is_packed_and_as_exact_as_the_usual_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randn(2, 3, 70, 98, generator=torch.Generator().manual_seed(0))
    packed, exact = backbone(torch.bfloat16), backbone().patch_tokens(pixels)
    assert any(parameter.is_mkldnn for parameter in packed.network.parameters())
    monkeypatch.setattr(linear, "_operators_work", lambda dtype: False)
    usual = backbone(torch.bfloat16)
    assert not any(parameter.is_mkldnn for parameter in usual.network.parameters())
    errors = [float((each.patch_tokens(pixels).float() - exact).norm()) for each in (packed, usual)]
    assert 0 < errors[0] < 1.2 * errors[1]


def test_float16_is_not_packed() -> None:
    half = backbone(torch.float16)
    assert not any(parameter.is_mkldnn for parameter in half.network.parameters())


@pytest.mark.parametrize(
    "broken",
    [
        {"machine": "arm64"},
        {"operator": NotImplementedError("no such operator")},
        {"operator": RuntimeError("could not create a primitive")},
    ],
    ids=["arm", "missing", "failing"],
)
def test_where_it_cannot_be_done_the_usual_layers_stay(
    broken: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "machine" in broken:
        monkeypatch.setattr("platform.machine", lambda: broken["machine"])
    else:

        def fail(self: Linear) -> None:
            raise broken["operator"]  # type: ignore[misc]

        monkeypatch.setattr(Linear, "pack", fail)
    network = torch.nn.Sequential(Linear(4, 4), torch.nn.Linear(4, 4))
    assert pack_linears(network) is False
    assert network(torch.zeros(1, 4)).shape == (1, 4)
    assert not any(parameter.is_mkldnn for parameter in network.parameters())
