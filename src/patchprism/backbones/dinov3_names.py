"""Names of DINOv3's tensors in Meta's files, in ``transformers`` and in ``timm``. Loads no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    State = Mapping[str, torch.Tensor]

# Names outside the blocks, and our names for them.
_TOP = {
    "storage_tokens": "register_tokens",
    "reg_token": "register_tokens",
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.patch_embeddings.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.bias": "patch_embed.proj.bias",
}
_BLOCK = re.compile(r"(?:blocks|layer)\.(\d+)\.(.+)")
_INNER = {
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "attn.q_bias": "attn.q.bias",
    "attn.v_bias": "attn.v.bias",
    "gamma_1": "ls1.gamma",
    "gamma_2": "ls2.gamma",
}
_PLAIN = {"mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}
_GATED = {
    "mlp.gate_proj": "mlp.w1",
    "mlp.up_proj": "mlp.w2",
    "mlp.down_proj": "mlp.w3",
    "mlp.fc1_g": "mlp.w1",
    "mlp.fc1_x": "mlp.w2",
    "mlp.fc2": "mlp.w3",
}
# Buffers, and the norm for small crops. No patch token depends on them.
_UNUSED = re.compile(r"rope_embed\.periods|.*\.attn\.qkv\.bias_mask|local_cls_norm\..*")
# In memory, the blocks of transformers' network are one level deeper than in its files.
_DEEPER = re.compile(r"(^|\.)model\.layer\.(?=\d)")


def unwrapped(state: State) -> dict[str, torch.Tensor]:
    """A state with its blocks on the same level as its embeddings, as in files."""
    return {_DEEPER.sub(r"\1layer.", name): tensor for name, tensor in state.items()}


def dinov3_names(state: State, *, gated: bool, periods: torch.Tensor) -> dict[str, torch.Tensor]:
    """Convert a DINOv3 state in any known layout to our names, with query, key and value in one tensor.

    Unknown names are kept, so that the strict loading can report them.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
    gated : bool
        Whether the network's MLP is gated.
    periods : torch.Tensor
        Periods of the rotation. Meta's files contain them, rounded to bfloat16; the hub's files do not. Those of a
        file are only compared with these, so that tokens do not depend on the layout.

    Raises
    ------
    WeightsError
        If a part of query, key and value, or of the gated MLP, is missing, if keys have a bias, or if the periods of
        the rotation are not DINOv3's.
    """
    stored = state.get("rope_embed.periods")
    if stored is not None and (
        stored.shape != periods.shape or not bool(((stored.float() / periods - 1).abs() < 0.01).all())
    ):
        raise WeightsError("rope_embed.periods are not DINOv3's; is this file for this model?")
    inner_names = _INNER | (_GATED if gated else _PLAIN)
    named: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if _UNUSED.fullmatch(name):
            continue
        ours = _TOP.get(name, name)
        block = _BLOCK.fullmatch(name)
        if block is not None:
            ours = f"blocks.{block[1]}.{_inner(block[2], inner_names)}"
        if ours in named:
            raise WeightsError(f"holds two tensors for {ours}; the second is {name}")
        named[ours] = tensor
    if "mask_token" in named and named["mask_token"].ndim == 3:
        named["mask_token"] = named["mask_token"][0]
    for number in sorted({match[1] for name in named if (match := _BLOCK.fullmatch(name))}, key=int):
        masked = f"blocks.{number}.attn.qkv.bias_mask" in state
        _join_qkv(named, f"blocks.{number}.attn.", masked=masked)
        if gated:
            _join(named, f"blocks.{number}.mlp.", ("w1", "w2"), "w12")
    return named


def _inner(name: str, names: Mapping[str, str]) -> str:
    if name in names:
        return names[name]
    module, _, last = name.rpartition(".")
    return f"{names[module]}.{last}" if module in names else name


def _join_qkv(named: dict[str, torch.Tensor], prefix: str, *, masked: bool) -> None:
    """Join query, key and value. The key's bias, for which only Meta's layout has a place, is zero."""
    import torch

    _join(named, prefix, ("q", "k", "v"), "qkv", kinds=("weight",))
    weight, bias = named.get(f"{prefix}qkv.weight"), named.get(f"{prefix}qkv.bias")
    if weight is None or weight.ndim != 2 or weight.shape[0] % 3:
        return  # the strict loading reports it
    width = weight.shape[0] // 3
    if bias is not None:
        if tuple(bias.shape) != (3 * width,):
            return
        bias = bias.clone()
        if not masked and bool(bias[width : 2 * width].any()):
            raise WeightsError(f"{prefix}qkv.bias has a part for keys, which DINOv3 does not have")
        bias[width : 2 * width] = 0
    else:
        parts = [named.pop(f"{prefix}{part}.bias", None) for part in ("q", "v")]
        zeros = weight.new_zeros(width)
        query, value = (zeros if part is None else part for part in parts)
        bias = torch.cat([query, zeros, value])
    named[f"{prefix}qkv.bias"] = bias


def _join(
    named: dict[str, torch.Tensor],
    prefix: str,
    parts: tuple[str, ...],
    whole: str,
    kinds: tuple[str, ...] = ("weight", "bias"),
) -> None:
    """Join the tensors of several layers along their first axis, if there are any."""
    import torch

    for kind in kinds:
        names = [f"{prefix}{part}.{kind}" for part in parts]
        if not any(name in named for name in names):
            continue
        missing = next((name for name in names if name not in named), None)
        if missing is not None:
            raise WeightsError(f"missing: {missing}")
        tensors = [named.pop(name) for name in names]
        if len({tuple(each.shape[1:]) for each in tensors}) > 1:
            raise WeightsError(f"{names[0]} and the tensors beside it have different shapes")
        named[f"{prefix}{whole}.{kind}"] = torch.cat(tensors)
