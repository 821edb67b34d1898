"""Read weights from untrusted files, and load them into a network strictly."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from patchprism.errors import WeightsError
from patchprism.support.threads import few_threads

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import torch
    from torch import nn

_NAMED = 3  # a message names this many tensors, and counts the others
# Maximum depth of nested dictionaries; networks are not nested deeper.
_DEEPEST = 8
# First bytes of other files, and advice for them.
_OTHERS = (
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the weights themselves; `git lfs pull` in its repository fetches them",
    ),
    (b"/annex/objects/", "a pointer of git-annex, not the weights themselves; `git annex get` fetches them"),
    (b"\x1f\x8b", "a gzip archive; unpack it and give the file of weights inside"),
    (b"\x89HDF", "an HDF5 file (of Keras, say), not a PyTorch checkpoint (.pth) or safetensors"),
    (
        b"\x80",
        "a pickle that torch.save did not write; load it with the program that wrote it, and save it again "
        "with safetensors.torch.save_file",
    ),
)
_SHARD = (
    "one process's share of a distributed (FSDP) checkpoint, not a whole network; save the whole "
    "network from the training code (FULL_STATE_DICT), or convert a folder of .distcp files with "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth`"
)
# Modules whose objects training scripts save together with the weights.
_SETTINGS = (
    "argparse",
    "omegaconf",
    "yacs",
    "types",
    "pathlib",
    "numpy",
    "datetime",
    "easydict",
    "addict",
    "mmengine",
)
_GLOBAL = re.compile(r"(?:GLOBAL|Unsupported class|global) ([\w.]+\.\w+)")


def file_kind(path: Path) -> str:
    """``"torch"`` or ``"safetensors"``, from the first bytes, because suffixes can be wrong.

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
    if path.suffix == ".distcp":
        raise WeightsError(f"{path}: {_SHARD}")
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):  # a zip archive, or the pickle of torch before 1.6
        return "torch"
    if head[8:9] == b"{":  # after eight bytes that hold the header's length
        return "safetensors"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise WeightsError(
            f"{path}: a web page, not weights (perhaps a saved error or login page); download the file again"
        )
    for beginning, what in _OTHERS:
        if head.startswith(beginning):
            raise WeightsError(f"{path}: {what}")
    raise WeightsError(f"{path}: neither a PyTorch checkpoint (.pth) nor safetensors")


def folder_of_weights(path: Path) -> str:
    """Advice for a folder that is given instead of a file of weights."""
    try:
        names = sorted(each.name for each in path.iterdir())
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return (
            "is a distributed (FSDP) checkpoint in a folder; make one file of it with `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pth`, and name that"
        )
    if "config.json" in names:
        return (
            f"is the folder of a transformers model; give it as the model hf:{path}, or give the file inside"
        )
    files = [name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".safetensors", ".bin"))]
    if len(files) == 1:
        return f"is a folder; give the file inside, {path / files[0]}"
    return "is a folder; give the file inside" + (f", one of {', '.join(files[:_NAMED])}" if files else "")


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a ``.pth`` or ``.safetensors`` file, by name, on the CPU. No code in the file is run.

    Parameters
    ----------
    path : Path
        The format is recognised by the content, not by the name.

    Returns
    -------
    dict of str to torch.Tensor
        Memory-mapped if the format allows it. Names in nested dictionaries are joined by dots. Values that are not
        tensors, such as the number of an epoch, are left out.

    Raises
    ------
    WeightsError
        If the file cannot be read, is damaged, holds no tensors, or cannot be read without running code.
    """
    kind = file_kind(path)
    import torch

    try:
        if kind == "safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            # Memory mapping saves one copy. It needs a zip archive, which torch writes since version 1.6.
            with path.open("rb") as file:
                zipped = file.read(2) == b"PK"
            if zipped:
                _check_archive(path)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: {_refusal(str(error))}") from error
    # Damaged files raise errors of the parsers: zip, pickle and JSON each have their own.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise WeightsError(f"{path}: damaged, cannot be read as {kind} ({reason})") from error
    try:
        tensors = _flattened(state) if isinstance(state, Mapping) else {}
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    if not tensors:
        raise WeightsError(f"{path}: must hold tensors by name, got {_content(state)}")
    if any(name.rsplit(".", 1)[-1] in ("_flat_param", "flat_param") for name in tensors):
        raise WeightsError(f"{path}: {_SHARD}")
    if {"scene_components", "object_components"} <= set(tensors):
        raise WeightsError(f"{path}: a prism, not weights; pass it as prism='FILE'")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise WeightsError(f"{path}: {name!r} must be a dense tensor, got {type(tensor).__name__}")
    return tensors


def _check_archive(path: Path) -> None:
    """Refuse a zip archive that torch.save did not write, or that is cut short."""
    if not zipfile.is_zipfile(path):
        raise WeightsError(
            f"{path}: damaged: the file ends after {path.stat().st_size:,} bytes, before it is complete; "
            "download or copy it again"
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise WeightsError(
            f"{path}: a TorchScript archive contains code, which PatchPrism does not run; save only the "
            "weights: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise WeightsError(
            f"{path}: a zip archive that was not written by torch.save; unpack it and give the file inside"
        )


def _refusal(message: str) -> str:
    """Advice for a pickle that torch cannot read without running code."""
    found = _GLOBAL.search(message)
    if found is None:
        return "refused, the file is damaged or holds code besides tensors"
    name = found[1]
    if name.startswith("torch.distributed"):
        return _SHARD
    words = (
        f"refused: it also holds objects of {name}, which could run code, and PatchPrism loads only tensors"
    )
    if name.split(".", 1)[0] not in _SETTINGS:
        return f"{words} (the file holds code besides tensors)"
    return (
        f"{words}. If you trust the file, save its weights alone: c = torch.load(FILE, weights_only=False); "
        "torch.save({k: c[k] for k in ('teacher', 'student', 'model', 'state_dict') if k in c}, 'weights.pth')"
    )


def _flattened(state: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    """Tensors in nested dictionaries, their names joined by dots."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()  # a pickled dictionary may contain itself, or another one many times

    def collect(values: Mapping[Any, Any], prefix: str, depth: int) -> None:
        seen.add(id(values))
        for key, value in values.items():
            name = f"{prefix}{key}"
            if isinstance(value, torch.Tensor):
                if name in tensors:
                    raise WeightsError(f"holds two tensors named {name}")
                tensors[name] = value
            elif isinstance(value, Mapping) and depth < _DEEPEST and id(value) not in seen:
                collect(value, f"{name}.", depth + 1)

    collect(state, "", 0)
    return tensors


def _content(state: object) -> str:
    if not isinstance(state, Mapping):
        return type(state).__name__
    names = [str(key) for key in list(state)[:_NAMED]]
    return f"none in {', '.join(names)}" if names else "an empty dictionary"


def check_tensor(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that has another shape, is not floating point, or has values that are not finite.

    Raises
    ------
    WeightsError
        Naming the tensor.
    """
    if tuple(tensor.shape) != shape:
        raise WeightsError(f"tensor {name} must have shape {shape}, got {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        raise WeightsError(f"tensor {name} must be floating point, got {tensor.dtype}")
    # The sum is fast, because it allocates nothing, and it is not finite if any value is not. But finite float16
    # values may overflow in the sum, so each value is checked before the tensor is refused.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise WeightsError(f"tensor {name} holds values that are not finite")


def load_strictly(
    network: nn.Module, state: Mapping[str, torch.Tensor], *, optional: Collection[str] = ()
) -> None:
    """Load weights into a network on the meta device, without a copy.

    Parameters
    ----------
    network : torch.nn.Module
    state : mapping of str to torch.Tensor
    optional : collection of str
        Tensors that may be missing, because no output depends on them; they become zero.

    Raises
    ------
    WeightsError
        If a tensor is missing, unknown, or refused by ``check_tensor``.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    _refuse(
        missing=[name for name in missing if name not in optional],
        unknown=[name for name in state if name not in wanted],
    )
    with few_threads(sum(tensor.numel() for tensor in wanted.values())):
        for name, tensor in wanted.items():
            if name in state:
                check_tensor(name, state[name], tuple(tensor.shape))
    zeros = {name: wanted[name].new_zeros(wanted[name].shape, device="cpu") for name in missing}
    network.load_state_dict({**state, **zeros}, assign=True)


def _refuse(**problems: list[str]) -> None:
    parts = []
    for what, names in problems.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            parts.append(f"{what}: {', '.join(names[:_NAMED])}{more}")
    if parts:
        raise WeightsError(f"{'; '.join(parts)}; is this file for this model?")
