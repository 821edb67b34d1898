"""A function of one's own as a backbone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from patchprism.backbones.base import (
    Backbone,
    BackboneRecord,
    WeightsOrigin,
    resolve_device,
    resolve_dtype,
)
from patchprism.errors import ModelError, OptionError
from patchprism.support import checks
from patchprism.support.checks import optional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class CallableBackbone(Backbone):
    """A function that turns pixels into patch tokens. It has one layer, its result.

    Parameters
    ----------
    fn, patch_size, mean, std, name, width, device, dtype
        See :meth:`~patchprism.backbones.Backbone.from_callable`.
    """

    def __init__(
        self,
        fn: Callable[[torch.Tensor], torch.Tensor],
        *,
        patch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        name: str = "custom",
        width: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        if not callable(fn):
            raise OptionError(f"fn must be callable, got {type(fn).__name__}")
        patch_size = checks.integer("patch_size", patch_size, low=1, high=checks.MAX_COUNT)
        width = optional(partial(checks.integer, low=1, high=checks.MAX_COUNT))("width", width)
        name = checks.text("name", name)
        self.fn = fn
        self.record = BackboneRecord(
            name=name,
            family="callable",
            patch_size=patch_size,
            width=width or 0,
            depth=1,
            heads=0,
            prefix_tokens=0,
            mean=checks.three_numbers("mean", mean),
            std=checks.three_numbers("std", std, positive=True),
            n_parameters=0,
            licence="",
            source="a function",
        )
        self.weights = WeightsOrigin(source=f"the function {getattr(fn, '__qualname__', type(fn).__name__)}")
        self.device, self.dtype = resolve_device(device), resolve_dtype(dtype)

    def _layers(
        self, pixels: torch.Tensor, layers: Sequence[int], facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        tokens = self.fn(pixels)
        batch, patch = len(pixels), self.record.patch_size
        h, w = (side // patch for side in pixels.shape[-2:])
        wanted = f"(B, h, w, D) = ({batch}, {h}, {w}, D) or (B, h * w, D) = ({batch}, {h * w}, D)"
        if not isinstance(tokens, torch.Tensor):
            raise ModelError(
                f"{self.record.name}: must return a tensor {wanted}, got {type(tokens).__name__}"
            )
        shape = tuple(tokens.shape)
        if len(shape) == 3 and shape[:2] == (batch, h * w):
            tokens = tokens.reshape(batch, h, w, -1)
        elif len(shape) != 4 or shape[:3] != (batch, h, w):
            hint = ""
            if len(shape) == 4 and shape[2:] == (h, w):
                hint = "; a network that puts channels first needs .permute(0, 2, 3, 1)"
            elif len(shape) == 3 and shape[0] == batch and shape[1] > h * w:
                hint = f"; drop the {shape[1] - h * w} prefix tokens"
            raise ModelError(f"{self.record.name}: must return {wanted}, got {shape}{hint}")
        width = tokens.shape[-1]
        if not tokens.is_floating_point():
            raise ModelError(f"{self.record.name}: tokens must be floating point, got {tokens.dtype}")
        if width == 0 or (self.record.width and width != self.record.width):
            raise ModelError(
                f"{self.record.name}: tokens must have width {self.record.width or 'D'}, got {width}"
            )
        if not self.record.width:
            self.record = replace(self.record, width=width)
        return {0: tokens.to(self.device)}
