"""Reading a file of weights that nobody vouches for, and putting it into a network, strictly."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING

from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import nn

_NAMED = 3  # tensors that a message names before it only counts


def file_kind(path: Path) -> str:
    """``"torch"`` or ``"safetensors"``, told from the first bytes, for names lie.

    Raises
    ------
    WeightsError
        If the file is neither, is empty, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise WeightsError(f"{path}: the file is empty")
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):  # a zip archive, or the pickle of torch before 1.6
        return "torch"
    if head[8:9] == b"{":  # after eight bytes that hold the header's length
        return "safetensors"
    if head.lstrip().startswith(b"<"):
        raise WeightsError(f"{path}: a web page, not weights (a saved error or login, say)")
    raise WeightsError(f"{path}: neither a PyTorch checkpoint (.pth) nor safetensors")


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a ``.pth`` or ``.safetensors`` file, by name, on the CPU. No code in the file is run.

    Parameters
    ----------
    path : Path
        The format is told from the content, not from the name.

    Returns
    -------
    dict of str to torch.Tensor
        Memory-mapped where the format allows it.

    Raises
    ------
    WeightsError
        If the file cannot be read, is damaged, or holds anything but tensors.
    """
    kind = file_kind(path)
    import torch

    try:
        if kind == "safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            # Mapping saves one copy; torch before 1.6 wrote no zip archive, and only those can be mapped.
            with path.open("rb") as file:
                zipped = file.read(2) == b"PK"
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: refused, the file is damaged or holds code besides tensors") from error
    # Damaged files end in whatever the parsers stumble over: zip, pickle and JSON each have their own errors.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise WeightsError(f"{path}: damaged, cannot be read as {kind} ({reason})") from error
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path}: must hold tensors by name, got {type(state).__name__}")
    for name, tensor in state.items():
        if (
            not isinstance(name, str)
            or not isinstance(tensor, torch.Tensor)
            or tensor.layout != torch.strided
        ):
            raise WeightsError(f"{path}: {name!r} must be a dense tensor, got {type(tensor).__name__}")
    return state


# Hugging Face's names, each with the official one.
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
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
}
_HUB_BLOCK_NAME = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_HUB_QKV_NAME = re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)")


def is_hub_layout(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are those that ``transformers`` gives a DINOv2."""
    return any(name.startswith(("embeddings.", "encoder.layer.")) for name in state)


def official_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A DINOv2 state in ``transformers``' names -> the official ones; query, key and value become ``qkv``.

    Names that are not known are kept, for the strict loading to name them.
    """
    import torch

    converted: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        block = _HUB_BLOCK_NAME.fullmatch(name)
        if block is None:
            converted[_HUB_TOP.get(name, name)] = tensor
            continue
        number, inner = block.groups()
        qkv = _HUB_QKV_NAME.fullmatch(inner)
        if qkv is None:
            for hub, official in _HUB_BLOCK.items():
                if inner == hub or inner.startswith(hub + "."):
                    inner = official + inner[len(hub) :]
                    break
            converted[f"blocks.{number}.{inner}"] = tensor
        elif qkv[1] == "query":
            parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            missing = next((part for part in parts if part not in state), None)
            if missing is not None:
                raise WeightsError(f"missing: {missing}")
            converted[f"blocks.{number}.attn.qkv.{qkv[2]}"] = torch.cat([state[part] for part in parts])
    return converted


def check_tensor(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape, of a type that is not floating point, or with values not finite.

    Raises
    ------
    WeightsError
        Naming the tensor.
    """
    if tuple(tensor.shape) != shape:
        raise WeightsError(f"tensor {name} must have shape {shape}, got {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        raise WeightsError(f"tensor {name} must be floating point, got {tensor.dtype}")
    # One NaN or infinity makes the sum one, and a sum reads once and writes nothing; but a sum of finite
    # float16 values may overflow, so a sum that is not finite is only a suspicion.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise WeightsError(f"tensor {name} holds values that are not finite")


def load_strictly(network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Give a network on the meta device its weights, without a copy.

    Raises
    ------
    WeightsError
        If a tensor is missing, unknown, or refused by ``check_tensor``.
    """
    wanted = network.state_dict()
    _refuse("missing", [name for name in wanted if name not in state])
    _refuse("unknown", [name for name in state if name not in wanted])
    for name, tensor in wanted.items():
        check_tensor(name, state[name], tuple(tensor.shape))
    network.load_state_dict(dict(state), assign=True)


def _refuse(what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise WeightsError(f"{what}: {', '.join(names[:_NAMED])}{more}; is this the model's own file?")
