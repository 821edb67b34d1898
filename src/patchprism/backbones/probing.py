"""Helpers for the adapters of other libraries: read the values inside a network while it runs."""

from __future__ import annotations

from contextlib import contextmanager
from math import gcd
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from patchprism.errors import ExtraError, ModelError, PatchPrismError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn


@contextmanager
def outputs_of(
    modules: Mapping[int, nn.Module], inputs: Mapping[int, nn.Module] | None = None
) -> Iterator[dict[Any, torch.Tensor]]:
    """Record the outputs of modules during the block, by key; with ``inputs``, also their inputs."""
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
        A sequence that ends with the h * w patches row by row, or a map. A map that is finer than the grid is
        averaged over each patch.
    grid : tuple of int
        Rows h and columns w.
    """
    h, w = grid
    if tokens.ndim == 4:
        if tuple(tokens.shape[-2:]) != grid:
            tokens = F.adaptive_avg_pool2d(tokens, grid)
        return tokens.permute(0, 2, 3, 1)
    return tokens[:, tokens.shape[1] - h * w :].reshape(len(tokens), h, w, -1)


def reason(error: BaseException) -> str:
    """One line about an error of another library."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def of_one_size(name: str, fixed: tuple[int, int], shape: tuple[int, ...]) -> str:
    """Advice for photos whose size differs from the only size that a network accepts; sizes are (height, width)."""
    (high, wide), (height, width) = fixed, shape
    words = f"{name} only takes photos of {wide} x {high} pixels, got {width} x {height}"
    if high != wide:
        ratio = f"{wide // gcd(high, wide)}:{high // gcd(high, wide)}"
        return f"{words}; crop the photos to {ratio} and give size={min(high, wide)}"
    if height == width:
        return f"{words}; give size={high}"
    return (
        f"{words}; give square photos and size={high}, or preset='seed' and size={high}, which crops them to a square "
        "(and normalises with 0.5, unless mean and std are given)"
    )


@contextmanager
def inside(name: str, package: str, extra: str) -> Iterator[None]:
    """Convert errors of a model's package, while it is imported or builds a network, to our errors.

    Raises
    ------
    ExtraError
        If the package is not installed.
    ModelError
        If it is installed, but fails. transformers and timm import torchvision if it is installed, and fail if it
        does not fit torch.
    """
    try:
        yield
    except (PatchPrismError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        missing = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing == package:
            raise ExtraError(extra, f"model {name}") from error
        causes = _causes(error)
        if any("torchvision" in f"{getattr(each, 'name', '')} {each}" for each in causes):
            way_out = "" if package == "timm" else f", or uninstall torchvision, which {name} does not need"
            raise ModelError(
                f"{name}: {package} cannot be used here ({reason(causes[-1])}); it needs a torchvision that "
                f"fits this torch: install the one for torch {torch.__version__}, from the same source as "
                f"torch{way_out}"
            ) from error
        fix = f"pip install {missing}" if missing else f"pip install --upgrade {package}"
        raise ModelError(f"{name}: {package} fails here ({reason(error)}); try {fix}") from error


def _causes(error: BaseException) -> list[BaseException]:
    """An error, and the errors that caused it."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.append(found)
        found = found.__cause__ or found.__context__
    return chain


@contextmanager
def running(name: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Convert the error of a network that does not accept photos of this shape to our error."""
    try:
        yield
    except (PatchPrismError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{name}: does not run on photos of {shape[-1]} x {shape[-2]} pixels ({reason(error)}); try another size"
        ) from error
