"""Attention by oneDNN equals torch's, and is only used where it is faster."""

from __future__ import annotations

import concurrent.futures.thread
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from standin import filled_state

from patchprism.backbones import WeightsOrigin, cpu_attention, dinov2, find_record, linear
from patchprism.backbones.cpu_attention import attend, pays_off

needs_onednn = pytest.mark.skipif(
    not linear._operators_work(), reason="this torch or processor does not support packed layers"
)


def states(tokens: int) -> list[torch.Tensor]:
    """Query, key and value as the network gives them: views of one tensor."""
    qkv = torch.randn(2, tokens, 3, 3, 8, generator=torch.Generator().manual_seed(0))
    return list(qkv.permute(2, 0, 3, 1, 4).unbind(0))


@needs_onednn
@pytest.mark.parametrize("tokens", [1, 256, 600])
def test_attention_is_torchs(tokens: int) -> None:
    query, key, value = states(tokens)
    query = query * 4  # differences between the weights that count
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attend(query, key, value), expected, rtol=0, atol=1e-5)


@needs_onednn
def test_threads_of_torch_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    attend(*states(300))
    assert torch.get_num_threads() == before


@needs_onednn
def test_threads_that_outlive_the_main_thread_still_attend(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = states(300)
    expected = F.scaled_dot_product_attention(query, key, value)
    # As while Python waits for other threads to end.
    monkeypatch.setattr(concurrent.futures.thread, "_shutdown", True)
    torch.testing.assert_close(attend(query, key, value), expected, rtol=0, atol=1e-5)


@needs_onednn
def test_tokens_are_the_same_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    record = find_record("dinov2_vits14")
    network = dinov2.build(dataclasses.replace(record, depth=2))
    network.load_state_dict(filled_state(network), assign=True)
    backbone = dinov2.DinoV2Backbone(
        record, network, WeightsOrigin(source="test"), torch.device("cpu"), torch.float32
    )
    pixels = torch.randn(1, 3, 14 * 20, 14 * 26, generator=torch.Generator().manual_seed(0))
    called = []
    monkeypatch.setattr(dinov2, "attend", lambda *states: (called.append(1), attend(*states))[1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    tokens = {}
    for amd in (False, True):
        monkeypatch.setattr(cpu_attention, "prefers_onednn", lambda amd=amd: amd)
        tokens[amd] = backbone.patch_tokens(pixels)
        assert len(called) == 2 * amd  # once per layer
    assert float((tokens[True] - tokens[False]).norm() / tokens[False].norm()) < 1e-5


def test_where_it_pays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(cpu_attention, "prefers_onednn", lambda: True)
    assert pays_off(torch.empty(2, 6, 1025, 64))
    assert not pays_off(torch.empty(2, 6, 257, 64))  # small products
    assert not pays_off(torch.empty(1, 6, 1025, 64))  # fewer heads than two per thread
    monkeypatch.setattr(cpu_attention, "prefers_onednn", lambda: False)
    assert not pays_off(torch.empty(2, 6, 1025, 64))
