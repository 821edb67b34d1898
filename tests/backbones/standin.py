"""Random weights with a seed, scaled so that tokens differ between patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping


def fill(tensors: Mapping[str, torch.Tensor], seed: int = 0) -> None:
    """Fill in place: matrices keep the scale of their input, gains are near 1, tables and tokens near 0.5."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator)
        last = name.rsplit(".", 1)[-1]
        with torch.no_grad():
            if "gamma" in name or "lambda1" in name:
                tensor.copy_(0.3 + 0.1 * noise)
            elif "norm" in name:
                tensor.copy_(0.1 * noise + (1.0 if last == "weight" else 0.0))
            elif last == "weight":
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            else:
                tensor.copy_(noise * (0.1 if last == "bias" else 0.5))


def filled_state(network: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A filled state for a network on the meta device."""
    state = {name: torch.empty(tensor.shape) for name, tensor in network.state_dict().items()}
    fill(state, seed)
    return state
