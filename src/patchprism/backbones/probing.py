"""What adapters share: looking into somebody else's network while it runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from torch import nn


@contextmanager
def outputs_of(
    modules: Mapping[int, nn.Module], inputs: Mapping[int, nn.Module] | None = None
) -> Iterator[dict[Any, torch.Tensor]]:
    """What modules return while the block lasts, by their keys; with ``inputs`` also what they are given."""
    seen: dict[Any, torch.Tensor] = {}

    def hook(key: int) -> Callable[[Any, Any, Any], None]:
        def keep(_: Any, given: Any, output: Any) -> None:
            seen[key] = output[0] if isinstance(output, tuple) else output
            if inputs and key in inputs and given:
                seen["input", key] = given[0]

        return keep

    handles = [module.register_forward_hook(hook(key)) for key, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def to_grid(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Patches as a network holds them -> (B, h, w, D).

    Parameters
    ----------
    tokens : torch.Tensor, shape (B, N, D) or (B, D, H', W')
        A sequence that ends with the h * w patches row by row, or a map; a finer map than asked for gives each
        patch the mean of what it covers.
    grid : tuple of int
        Rows h and columns w.
    """
    h, w = grid
    if tokens.ndim == 4:
        if tuple(tokens.shape[-2:]) != grid:
            tokens = F.adaptive_avg_pool2d(tokens, grid)
        return tokens.permute(0, 2, 3, 1)
    return tokens[:, tokens.shape[1] - h * w :].reshape(len(tokens), h, w, -1)


def reason(error: Exception) -> str:
    """A foreign error in one line."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
