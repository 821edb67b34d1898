"""Where a file of weights keeps the network, and how it names the network's tensors. Loads no torch.

Training code wraps the network: ``teacher.backbone.``, ``module.``, ``_orig_mod.`` and similar, as keys of nested
dictionaries or as prefixes of names. Dictionaries are flattened when a file is read, so both are prefixes here. If
there are several networks, the teacher is used, as the authors of DINO do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import torch

    State = Mapping[str, torch.Tensor]

# Prefixes that say which network follows, or only that one follows.
_WRAPPERS = frozenset(
    (
        *("teacher", "teacher_model", "teacher_backbone", "ema", "model_ema", "ema_model", "state_dict_ema"),
        *("target_encoder", "student", "student_model", "student_backbone"),
        *("state_dict", "model", "network", "net", "backbone", "encoder", "vit", "feature_extractor"),
        *("dinov2", "dinov2_with_registers", "_forward_module"),
    )
)
# Parts of names from wrappers of torch: DataParallel, compile, FSDP, activation checkpointing.
_TRANSPARENT = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
# Heads, which training puts on top of the network. No patch token depends on them.
_HEAD = re.compile(r"(\w+_)?heads?(_\w+)?|classifier|fc|fc_norm|pooler|last_layer")
_MOST_LEFT_OUT = 20
# No network has a larger position embedding: 1024 x 1024 patches of 14 pixels are 200 megapixels.
_MOST_NATIVE = 1024


@dataclass(frozen=True)
class FoundNetwork:
    """A network in a file of weights.

    Attributes
    ----------
    state : dict of str to torch.Tensor
        Its tensors, under its own names.
    taken_from : str
        Prefix of their names in the file, for example ``"teacher.backbone"``; empty if there is none.
    left_out : tuple of str
        Other networks, heads and everything else in the file, by the prefixes of their names.
    """

    state: dict[str, torch.Tensor]
    taken_from: str
    left_out: tuple[str, ...]


def find_network(
    state: State,
    wanted: Collection[str],
    rename: Callable[[State], State] = lambda group: group,
) -> FoundNetwork:
    """Find the network among the tensors of a file.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        All tensors of the file; names of nested dictionaries are joined by dots.
    wanted : collection of str
        Names of the network's tensors.
    rename : callable, optional
        Gives a group of tensors the network's own names.

    Returns
    -------
    FoundNetwork
        Unknown names are kept, so that the strict loading can report them; heads are left out.

    Raises
    ------
    WeightsError
        If the file holds several networks that fit, and none of them is a teacher's.
    """
    groups, shown = _grouped(state)
    named: dict[str, State] = {}
    wrong: dict[str, WeightsError] = {}  # raised only if the network is chosen
    for prefix, group in groups.items():
        try:
            named[prefix] = rename(group)
        except WeightsError as error:
            named[prefix], wrong[prefix] = group, error
    fits = {
        prefix: len(group) if prefix in wrong else sum(name in wanted for name in group)
        for prefix, group in named.items()
    }
    best = max(fits.values())
    if best:
        candidates = sorted((p for p, fit in fits.items() if 2 * fit > best), key=_rank)
        if len(candidates) > 1 and _rank(candidates[0]) == _rank(candidates[1]):
            names = " and ".join(shown[p] or "the file itself" for p in candidates)
            raise WeightsError(
                f"holds several networks that fit ({names}); save the one you want to its own file"
            )
        chosen = candidates[0]
    else:
        candidates, chosen = [], max(groups, key=lambda prefix: len(groups[prefix]))
    if chosen in wrong:
        raise wrong[chosen]
    kept, left = {}, set()
    for name, tensor in named[chosen].items():
        first = name.split(".", 1)[0]
        if name not in wanted and _HEAD.fullmatch(first):
            left.add(f"{shown[chosen]}.{first}".lstrip("."))
        else:
            kept[name] = tensor
    for prefix, group in groups.items():
        if prefix in candidates and prefix != chosen:
            left.add(shown[prefix] or "the other tensors")
        elif prefix != chosen:
            left |= {f"{shown[prefix]}.{name.split('.', 1)[0]}".lstrip(".") for name in group}
    return FoundNetwork(kept, shown[chosen], tuple(sorted(left)[:_MOST_LEFT_OUT]))


def _grouped(state: State) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """Tensors grouped by the prefix of their names, and each prefix as the file spells it."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    shown: dict[str, str] = {}
    for name, tensor in state.items():
        parts, at = name.split("."), 0
        while at < len(parts) - 1 and _wraps(parts, at):
            at += 1
        prefix = ".".join(part for part in parts[:at] if part not in _TRANSPARENT)
        rest = ".".join(part for part in parts[at:] if part not in _TRANSPARENT)
        shown.setdefault(prefix, ".".join(parts[:at]))
        group = groups.setdefault(prefix, {})
        if rest in group:
            raise WeightsError(f"holds two tensors for {rest}; the second is {name}")
        group[rest] = tensor
    return groups, shown


def _wraps(parts: list[str], at: int) -> bool:
    if parts[at] == "encoder":  # transformers' own names begin with it
        return parts[at + 1] != "layer"
    return parts[at] in _WRAPPERS or parts[at] in _TRANSPARENT


def _rank(prefix: str) -> int:
    """Rank of a prefix: 0 for a teacher, 2 for a student, 1 for any other network."""
    parts = prefix.split(".")
    if any("teacher" in part or "ema" in part.split("_") or part == "target_encoder" for part in parts):
        return 0
    return 2 if any("student" in part for part in parts) else 1


# ---------------------------------------------------------------- DINOv2's names

# Hugging Face's names, and the official names for them.
_HUB_TOP = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_HUB_BLOCK = {
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
}
_HUB_BLOCK_NAME = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
# The names in files, and those in transformers' networks since version 5.
_HUB_QKV_NAMES = (
    (re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)"), ("query", "key", "value")),
    (re.compile(r"attention\.([qkv])_proj\.(weight|bias)"), ("q_proj", "k_proj", "v_proj")),
)
# The official code cuts its blocks into chunks for FSDP; the second number counts all blocks.
_CHUNKED = re.compile(r"blocks\.\d+\.(\d+\..+)")


def official_names(state: State, *, gated: bool = False) -> dict[str, torch.Tensor]:
    """Convert a DINOv2 state in any known layout to the official names.

    The known layouts are the official one, whole or cut into chunks, that of ``transformers`` and that of ``timm``.
    Unknown names are kept, so that the strict loading can report them.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
    gated : bool
        Whether the network's MLP is gated (ViT-g). ``timm`` names its tensors as those of any other MLP.

    Raises
    ------
    WeightsError
        If a part of query, key and value is missing.
    """
    if any(name.startswith(("embeddings.", "encoder.layer.")) for name in state):
        return _from_hub(state)
    named: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        chunked = _CHUNKED.fullmatch(name)
        official = f"blocks.{chunked[1]}" if chunked else name
        if official in named:
            raise WeightsError(f"holds two tensors for {official}; the second is {name}")
        named[official] = tensor
    return _from_timm(named, gated=gated) if "reg_token" in named or gated else named


def _from_hub(state: State) -> dict[str, torch.Tensor]:
    """Names of ``transformers`` -> the official ones; query, key and value become ``qkv``."""
    import torch

    converted: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        block = _HUB_BLOCK_NAME.fullmatch(name)
        if block is None:
            converted[_HUB_TOP.get(name, name)] = tensor
            continue
        number, inner = block.groups()
        for pattern, parts in _HUB_QKV_NAMES:
            qkv = pattern.fullmatch(inner)
            if qkv is None:
                continue
            names = [name.replace(f".{parts['qkv'.index(qkv[1][0])]}.", f".{part}.") for part in parts]
            missing = next((each for each in names if each not in state), None)
            if missing is not None:
                raise WeightsError(f"missing: {missing}")
            official = f"blocks.{number}.attn.qkv.{qkv[2]}"
            if official not in converted:
                converted[official] = torch.cat([state[each] for each in names])
            break
        else:
            for hub, official in _HUB_BLOCK.items():
                if inner == hub or inner.startswith(hub + "."):
                    inner = official + inner[len(hub) :]
                    break
            converted[f"blocks.{number}.{inner}"] = tensor
    return converted


def _from_timm(state: State, *, gated: bool) -> dict[str, torch.Tensor]:
    """Names of ``timm`` -> the official ones.

    In networks with registers, timm adds the class token's position to the token itself, and stores none for it.
    """
    import torch

    converted = {}
    for name, tensor in state.items():
        if gated:
            name = name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.")
        converted["register_tokens" if name == "reg_token" else name] = tensor
    table = converted.get("pos_embed")
    if "reg_token" in state and table is not None and table.ndim == 3 and not native_grid(table):
        converted["pos_embed"] = torch.cat([table.new_zeros(1, 1, table.shape[2]), table], dim=1)
    return converted


def native_grid(table: torch.Tensor) -> int:
    """Side of the square grid of a position embedding (1, 1 + side * side, D); 0 if it has no such grid."""
    if table.ndim != 3 or table.shape[1] < 2:
        return 0
    side = isqrt(table.shape[1] - 1)
    return side if side * side == table.shape[1] - 1 and side <= _MOST_NATIVE else 0
