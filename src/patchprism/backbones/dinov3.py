"""DINOv3's vision transformers. Positions are encoded by rotating queries and keys.

Written after Meta's paper and ``transformers``' ``modeling_dinov3_vit.py``; the tokens agree with those of the latter.
Siméoni et al., DINOv3, 2025, https://arxiv.org/abs/2508.10104; the rotation: Heo et al., Rotary Position Embedding for
Vision Transformer, ECCV 2024. Shapes in comments: B photos, N tokens, D width, h x w the grid of patches.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from patchprism.backbones.checkpoint import load_strictly, read_checkpoint
from patchprism.backbones.dinov2 import Block, DinoV2Backbone, Mlp, PatchEmbed, SwiGlu, VisionTransformer
from patchprism.backbones.dinov3_names import dinov3_names, unwrapped
from patchprism.backbones.layouts import find_network
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from patchprism.backbones.dinov2 import Rotation
    from patchprism.backbones.record import BackboneRecord, WeightsOrigin

_BASE = 100.0  # base of the periods of the rotation
_EPS = 1e-5
_GRIDS_KEPT = 16


def rotation_of(h: int, w: int, width: int) -> Rotation:
    """Cosine and sine of each patch's angles.

    The centres of the patches are between -1 and 1 in each direction, for every grid. The first quarter of the
    numbers of a head has the angles of the row, and the second quarter those of the column. The second half repeats
    both.

    Parameters
    ----------
    h, w : int
        Rows and columns of the grid.
    width : int
        Width of a head.

    Returns
    -------
    tuple of torch.Tensor, each (h * w, width), float32, on the CPU
    """
    rows, columns = ((torch.arange(n, dtype=torch.float32) + 0.5) / n * 2 - 1 for n in (h, w))
    middles = torch.cartesian_prod(rows, columns)  # (h * w, 2)
    angles = (2 * math.pi * middles[:, :, None] / periods(width)).flatten(1).tile(2)
    return angles.cos(), angles.sin()


def periods(width: int) -> torch.Tensor:
    """(width / 4,), float32: the periods of a head's angles, from 1 to nearly 100."""
    return _BASE ** torch.arange(0, 1, 4 / width, dtype=torch.float32)


class DinoV3(VisionTransformer):
    """DINOv3's vision transformer.

    Parameters
    ----------
    width, depth, heads, patch_size : int
        As in the record.
    n_registers : int
        Register tokens.
    gated : bool
        Whether the MLP is gated, as in the models whose names end in "plus".
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        patch_size: int = 16,
        n_registers: int = 4,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.patch_size, self.n_prefix = patch_size, 1 + n_registers
        self.head_width = width // heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, n_registers, width))
        # Used only in training, but the files contain it.
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbed(patch_size, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, SwiGlu(width, 4 * width) if gated else Mlp(width), _EPS) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self._rotations: OrderedDict[tuple[int, int], Rotation] = OrderedDict()

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, N, D): class token, registers, patches; none carries a position."""
        patches = self.patch_embed(pixels)
        prefix = torch.cat([self.cls_token, self.register_tokens], dim=1)
        return torch.cat([prefix.expand(len(patches), -1, -1), patches], dim=1)

    def rotation(self, pixels: torch.Tensor) -> Rotation:
        """(B, 3, H, W) -> cosine and sine of the patches' angles, computed once per grid."""
        h, w = pixels.shape[-2] // self.patch_size, pixels.shape[-1] // self.patch_size
        kept = self._rotations.pop((h, w), None)
        if kept is None:
            cos, sin = rotation_of(h, w, self.head_width)
            kept = cos.to(self.cls_token), sin.to(self.cls_token)
        self._rotations[h, w] = kept  # it is the last again; the least recently used grid is removed first
        if len(self._rotations) > _GRIDS_KEPT:
            self._rotations.popitem(last=False)
        return kept


class DinoV3Backbone(DinoV2Backbone):
    """A DINOv3 network with its weights."""


def build(record: BackboneRecord) -> DinoV3:
    """The network of a record on torch's meta device, without memory or initial values."""
    with torch.device("meta"):
        return DinoV3(
            width=record.width,
            depth=record.depth,
            heads=record.heads,
            patch_size=record.patch_size,
            n_registers=record.prefix_tokens - 1,
            gated=_is_gated(record),
        )


def _is_gated(record: BackboneRecord) -> bool:
    return record.name.endswith("plus")


def load(
    record: BackboneRecord, weights: WeightsOrigin, device: torch.device, dtype: torch.dtype
) -> DinoV3Backbone:
    """The backbone of a record with the weights at ``weights.path``: Meta's names, transformers' or timm's.

    Raises
    ------
    WeightsError
        If the file is damaged, or is not this model's.
    """
    path = Path(weights.path)
    state = unwrapped(read_checkpoint(path))
    network = build(record)
    try:
        rename = partial(dinov3_names, gated=_is_gated(record), periods=periods(network.head_width))
        found = find_network(state, network.state_dict().keys(), rename)
        load_strictly(network, found.state, optional=("mask_token",))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    weights = replace(weights, taken_from=found.taken_from, left_out=found.left_out)
    return DinoV3Backbone(record, network, weights, device, dtype)
