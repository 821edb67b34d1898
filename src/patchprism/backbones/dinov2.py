"""DINOv2's vision transformer, with the arithmetic and the names of the official code.

Parameters have the names of the official checkpoints, so that these load strictly and without conversion.
Shapes in comments: B photos, N tokens (prefix and patches), D width, h x w the grid of patches.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from patchprism.backbones.attention import attention_row, roll_back, rotate_patches
from patchprism.backbones.base import Backbone
from patchprism.backbones.checkpoint import load_strictly, read_checkpoint
from patchprism.backbones.cpu_attention import attend, pays_off
from patchprism.backbones.layouts import find_network, native_grid, official_names
from patchprism.backbones.linear import Linear, pack_linears
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    # Cosine and sine of each patch's angles, each (h * w, D / heads).
    Rotation = tuple[torch.Tensor, torch.Tensor]

    from collections.abc import Callable, Iterator, Sequence

    from patchprism.backbones.record import BackboneRecord, WeightsOrigin

NATIVE_GRID = 37  # the official checkpoints' position embedding is 37 x 37: 518 pixels
_GRIDS_KEPT = 16  # position embeddings kept; at 64 x 64 patches and D = 1536 one takes 25 MB
_EPS = 1e-6


class Attention(nn.Module):
    """Self-attention of all tokens with all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def project(
        self, x: torch.Tensor, rotation: Rotation | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, N, D) -> query, key and value, each (B, heads, N, D / heads)."""
        batch, n, width = x.shape
        qkv = self.qkv(x).view(batch, n, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            query, key = rotate_patches(query, rotation), rotate_patches(key, rotation)
        return query, key, value

    def facet(self, x: torch.Tensor, facet: str) -> torch.Tensor:
        """(B, N, D) -> query, key or value with the heads side by side, (B, N, D)."""
        return cast("torch.Tensor", self.qkv(x).chunk(3, dim=-1)[("query", "key", "value").index(facet)])

    def forward(self, x: torch.Tensor, rotation: Rotation | None = None) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        query, key, value = self.project(x, rotation)
        # Weights are packed only in float32 and bfloat16, on x86 processors where oneDNN's operators work.
        by_onednn = self.qkv.weight.is_mkldnn and pays_off(query)
        attention = attend if by_onednn else F.scaled_dot_product_attention
        mixed = attention(query, key, value)  # (B, heads, N, D / heads)
        return cast("torch.Tensor", self.proj(mixed.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        return cast("torch.Tensor", self.fc2(self.fc1(x, "gelu")))


class SwiGlu(nn.Module):
    """A gated MLP, by default of ViT-g's size; ``w12`` contains the layers of the gate and the value, stacked."""

    def __init__(self, width: int, hidden: int = 0) -> None:
        super().__init__()
        hidden = hidden or (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12 = Linear(width, 2 * hidden)
        self.w3 = Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return cast("torch.Tensor", self.w3(F.silu(gate) * value))


class LayerScale(nn.Module):
    """One learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))


class Block(nn.Module):
    """Attention and MLP, each with a normalisation before it and a learned scale after it."""

    def __init__(self, width: int, heads: int, mlp: nn.Module, eps: float = _EPS) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp
        self.ls2 = LayerScale(width)

    def forward(self, x: torch.Tensor, rotation: Rotation | None = None) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        # addcmul scales and adds in one pass over the tokens.
        x = torch.addcmul(x, self.attn(self.norm1(x), rotation), self.ls1.gamma)
        return torch.addcmul(x, self.mlp(self.norm2(x)), self.ls2.gamma)


def interpolate_positions(table: torch.Tensor, h: int, w: int, *, registers: bool) -> torch.Tensor:
    """Position embedding of the patches of an ``h`` x ``w`` grid.

    Checkpoints with and without registers were trained with different interpolations. Both are implemented, because
    the wrong one changes the features visibly.

    Parameters
    ----------
    table : torch.Tensor, shape (n * n, D)
        The checkpoint's embedding of its native grid, without the class token's. n is 37 in the official
        checkpoints, and 16 in networks that were trained at 224; the official code derives it from the shape, too.
    h, w : int
        Rows and columns of the requested grid.
    registers : bool
        Whether the checkpoint has register tokens.

    Returns
    -------
    torch.Tensor, shape (h * w, D), float32, on the CPU
        Computed there on every device, since Apple's GPU lacks the operator.
    """
    table = table.detach().to(device="cpu", dtype=torch.float32)
    native = isqrt(len(table))
    if h == w == native:
        return table
    image = table.view(1, native, native, -1).permute(0, 3, 1, 2)  # (1, D, n, n)
    if registers:
        image = F.interpolate(image, size=(h, w), mode="bicubic", align_corners=False, antialias=True)
    else:
        # The official code passes the factor, not the size, and torch then samples at 1 / factor. The added 0.1
        # (against rounding down) therefore shifts every sample a little, and must be kept.
        factor = ((h + 0.1) / native, (w + 0.1) / native)
        image = F.interpolate(image, scale_factor=factor, mode="bicubic", align_corners=False)
    return image.flatten(2).squeeze(0).T.contiguous()


class PatchEmbed(nn.Module):
    """A linear map of each patch's 3 x P x P pixels, stored as a convolution like in the checkpoints."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, h * w, D)."""
        return cast("torch.Tensor", self.proj(pixels).flatten(2).transpose(1, 2))


class VisionTransformer(nn.Module):
    """The common base of DINOv2 and DINOv3; subclasses add the positions of the patches."""

    patch_size: int
    n_prefix: int
    blocks: nn.ModuleList
    norm: nn.LayerNorm

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, N, D): class token, registers, patches, as the first block gets them."""
        raise NotImplementedError

    def rotation(self, pixels: torch.Tensor) -> Rotation | None:
        """(B, 3, H, W) -> the rotation of queries and keys, or None."""
        return None

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, h, w, D): patch tokens after the last norm."""
        tokens, rotation = self.embed(pixels), self.rotation(pixels)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return self._patches(tokens, pixels, norm=True)

    def layers(
        self, pixels: torch.Tensor, layers: Sequence[int], *, facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        """(B, 3, H, W) -> (B, h, w, D) of each layer. They must ascend; blocks after the last one are not run."""
        found: dict[int, torch.Tensor] = {}
        rotation = self.rotation(pixels)
        for i, tokens in enumerate(self.block_inputs(pixels, layers[-1])):
            if facet == "token":
                if i - 1 in layers:
                    found[i - 1] = self._patches(tokens, pixels, norm=norm)
                if i == layers[-1]:
                    found[i] = self._patches(self.blocks[i](tokens, rotation), pixels, norm=norm)
            elif i in layers:
                block = cast("Block", self.blocks[i])
                found[i] = self._patches(block.attn.facet(block.norm1(tokens), facet), pixels, norm=False)
        return found

    def block_inputs(self, pixels: torch.Tensor, last: int) -> Iterator[torch.Tensor]:
        """Inputs of blocks 0 to ``last``, each (B, N, D); block ``last`` itself is not run."""
        tokens, rotation = self.embed(pixels), self.rotation(pixels)
        yield tokens
        for block in self.blocks[:last]:
            tokens = block(tokens, rotation)
            yield tokens

    def query_key(
        self, tokens: torch.Tensor, layer: int, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Input of a block, (B, N, D) -> its query and key, each (B, heads, N, D / heads)."""
        block = cast("Block", self.blocks[layer])
        return block.attn.project(block.norm1(tokens), self.rotation(pixels))[:2]

    def _patches(self, tokens: torch.Tensor, pixels: torch.Tensor, *, norm: bool) -> torch.Tensor:
        patches = tokens[:, self.n_prefix :]
        h, w = pixels.shape[-2] // self.patch_size, pixels.shape[-1] // self.patch_size
        patches = cast("torch.Tensor", self.norm(patches)) if norm else patches
        return patches.reshape(len(pixels), h, w, -1)


class DinoV2(VisionTransformer):
    """The whole network.

    Parameters
    ----------
    width, depth, heads, patch_size : int
        As in the record.
    n_registers : int
        Register tokens, 0 or 4.
    gated : bool
        Whether the MLP is gated (ViT-g).
    native : int
        Side of the position embedding's grid.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        patch_size: int = 14,
        n_registers: int = 0,
        gated: bool = False,
        native: int = NATIVE_GRID,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + native**2, width))
        # Only training uses it. It is here because official checkpoints contain it and are loaded strictly.
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        if n_registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, n_registers, width))
        self.n_prefix = 1 + n_registers
        self.patch_embed = PatchEmbed(patch_size, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, SwiGlu(width) if gated else Mlp(width)) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self._positions: OrderedDict[tuple[int, int], torch.Tensor] = OrderedDict()

    def positions(self, h: int, w: int) -> torch.Tensor:
        """(h * w, D): the patches' position embedding, computed once per grid."""
        kept = self._positions.pop((h, w), None)
        if kept is None:
            kept = interpolate_positions(self.pos_embed[0, 1:], h, w, registers=self.n_prefix > 1)
            kept = kept.to(self.pos_embed)
        self._positions[h, w] = kept  # least recently used grids are removed first
        if len(self._positions) > _GRIDS_KEPT:
            self._positions.popitem(last=False)
        return kept

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, N, D): class token, registers, patches, as the first block gets them."""
        h, w = pixels.shape[-2] // self.patch_size, pixels.shape[-1] // self.patch_size
        patches: torch.Tensor = self.patch_embed(pixels)  # (B, h * w, D)
        batch, n, width = patches.shape
        tokens = patches.new_empty(batch, self.n_prefix + n, width)
        tokens[:, :1] = self.cls_token + self.pos_embed[:, :1]
        if self.n_prefix > 1:
            tokens[:, 1 : self.n_prefix] = self.register_tokens  # they carry no position
        torch.add(patches, self.positions(h, w), out=tokens[:, self.n_prefix :])
        return tokens


def build(record: BackboneRecord, native: int = NATIVE_GRID) -> DinoV2:
    """The network of a record on torch's meta device, which takes no memory and initialises nothing."""
    with torch.device("meta"):
        return DinoV2(
            width=record.width,
            depth=record.depth,
            heads=record.heads,
            patch_size=record.patch_size,
            n_registers=record.prefix_tokens - 1,
            gated=_is_gated(record),
            native=native,
        )


def _is_gated(record: BackboneRecord) -> bool:
    return record.name.startswith("dinov2_vitg")


class DinoV2Backbone(Backbone):
    """A DINOv2 network with its weights.

    Parameters
    ----------
    record : BackboneRecord
    network : VisionTransformer
        With weights, in evaluation mode.
    weights : WeightsOrigin
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(
        self,
        record: BackboneRecord,
        network: VisionTransformer,
        weights: WeightsOrigin,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.record, self.weights, self.device, self.dtype = record, weights, device, dtype
        self.network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
        pack_linears(self.network)

    facets = ("token", "query", "key", "value")
    has_attention = True

    def _layers(
        self, pixels: torch.Tensor, layers: Sequence[int], facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        last = self.depth - 1
        if list(layers) == [last] and facet == "token" and norm:
            return {last: self.network(pixels)}
        return self.network.layers(pixels, layers, facet=facet, norm=norm)

    def _attention_row(self, pixels: torch.Tensor, layer: int, token: int) -> torch.Tensor:
        for tokens in self.network.block_inputs(pixels, layer):
            last = tokens
        return attention_row(*self.network.query_key(last, layer, pixels), token, self._scale)

    def _rollout_row(self, pixels: torch.Tensor, token: int) -> torch.Tensor:
        # Only the blocks' inputs are kept. Queries and keys are twice as large, and are computed again on the way back.
        inputs = list(self.network.block_inputs(pixels, self.depth - 1))
        row = inputs[-1].new_zeros(inputs[-1].shape[:2], dtype=torch.float32)
        row[:, token] = 1.0
        while inputs:
            layer, tokens = len(inputs) - 1, inputs.pop()
            row = roll_back(row, *self.network.query_key(tokens, layer, pixels), self._scale)
        return row

    @property
    def _scale(self) -> float:
        return float((self.record.width // self.record.heads) ** -0.5)


def load(
    record: BackboneRecord,
    weights: WeightsOrigin,
    device: torch.device,
    dtype: torch.dtype,
    read: Callable[[Path], dict[str, torch.Tensor]] = read_checkpoint,
) -> DinoV2Backbone:
    """The backbone of a record with the weights at ``weights.path``, in any known layout.

    ``read`` reads the tensors of that file.

    Raises
    ------
    WeightsError
        If the file is damaged, or belongs to another model.
    """
    path = Path(weights.path)
    state = read(path)
    try:
        rename = partial(official_names, gated=_is_gated(record))
        network = build(record)
        found = find_network(state, network.state_dict().keys(), rename)
        table = found.state.get("pos_embed")
        native = (native_grid(table) if table is not None else 0) or NATIVE_GRID
        if native != NATIVE_GRID:
            network = build(record, native)
        load_strictly(network, found.state, optional=("mask_token",))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    weights = replace(weights, taken_from=found.taken_from, left_out=found.left_out)
    return DinoV2Backbone(record, network, weights, device, dtype)
