"""What a backbone is, and the registry of those that can be named. Importing it loads no torch."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchprism.errors import ModelError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

# What loading tells while it downloads: progress(message, done_bytes, total_bytes or None).
Progress = Callable[[str, int, int | None], None]

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class BackboneRecord:
    """All that is known of a backbone before its weights are loaded.

    Attributes
    ----------
    name : str
        What the user calls it.
    family : str
        Key of the code that builds it, e.g. ``"dinov2"``.
    patch_size : int
        Side of a patch, in pixels of model input.
    width : int
        Length D of a patch token.
    depth, heads : int
        Number of blocks, and of attention heads (0 for a convolutional network).
    prefix_tokens : int
        Tokens before the patches (class token and registers).
    mean, std : tuple of float
        Normalisation of RGB in [0, 1].
    n_parameters : int
        Number of parameters.
    licence : str
        SPDX name of the weights' licence.
    source : str
        Address of the weights, or the package that holds them.
    download_bytes : int
        Size of the download, 0 where nothing is downloaded.
    hub_repo : str
        The twin on the Hugging Face hub, empty where there is none.
    """

    name: str
    family: str
    patch_size: int
    width: int
    depth: int
    heads: int
    prefix_tokens: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    n_parameters: int
    licence: str
    source: str
    download_bytes: int = 0
    hub_repo: str = ""


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Where a backbone's weights came from.

    Attributes
    ----------
    source : str
        Address, repository or package, as a person would look for it.
    path : str
        The file that was read, empty for networks that have none.
    sha256 : str
        SHA-256 of that file in hexadecimal, empty for networks that have none.
    """

    source: str
    path: str = ""
    sha256: str = ""


class Backbone(ABC):
    """A frozen network that turns pixels into patch tokens.

    Attributes
    ----------
    record : BackboneRecord
    weights : WeightsOrigin
    device : torch.device
    dtype : torch.dtype
        What the network computes in; tokens always come out in float32.
    """

    record: BackboneRecord
    weights: WeightsOrigin
    device: torch.device
    dtype: torch.dtype

    def patch_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Patch tokens of a batch of framed photos.

        Parameters
        ----------
        pixels : torch.Tensor, shape (B, 3, H, W)
            Normalised model input on any device; H and W multiples of the patch size.

        Returns
        -------
        torch.Tensor, shape (B, H / patch, W / patch, D), float32, on the backbone's device

        Raises
        ------
        OptionError
            If the shape is not as above.
        """
        import torch

        patch = self.record.patch_size
        shape = tuple(pixels.shape)
        if len(shape) != 4 or shape[1] != 3 or 0 in shape or shape[2] % patch or shape[3] % patch:
            raise OptionError(f"pixels must be (B, 3, H, W) with H and W multiples of {patch}, got {shape}")
        with torch.inference_mode():
            tokens = self._forward(pixels.to(device=self.device, dtype=self.dtype))
        return tokens.float()

    @abstractmethod
    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in the backbone's dtype -> (B, h, w, D)."""


_RECORDS: dict[str, BackboneRecord] = {}


def register(records: Iterable[BackboneRecord]) -> None:
    """Add records to the registry; a name can be taken once."""
    for record in records:
        if record.name in _RECORDS:
            raise OptionError(f"model {record.name!r} is registered already")
        _RECORDS[record.name] = record


def records() -> tuple[BackboneRecord, ...]:
    """Every registered record, in the order of registration."""
    return tuple(_RECORDS.values())


def find_record(name: str) -> BackboneRecord:
    """The record of a model.

    Raises
    ------
    ModelError
        If no such model is registered; the message names the nearest ones.
    """
    if name in _RECORDS:
        return _RECORDS[name]
    near = difflib.get_close_matches(name, _RECORDS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`patchprism models` lists all."
    raise ModelError(f"unknown model {name!r}: {hint}")


def resolve_device(device: str) -> torch.device:
    """The torch device meant by ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or e.g. ``"cuda:1"``.

    Raises
    ------
    OptionError
        If the name is not one of these, or this machine has no such device.
    """
    if device.split(":")[0] not in DEVICES:
        raise OptionError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"device {device!r} is not a torch device") from error
    if (resolved.type == "cuda" and not has_cuda) or (resolved.type == "mps" and not has_mps):
        raise OptionError(f"device {device!r} is not available on this machine")
    return resolved


def resolve_dtype(dtype: str) -> torch.dtype:
    """The torch dtype meant by a name; ``"auto"`` is float32, so that every device gives the same colours.

    Raises
    ------
    OptionError
        If the name is not one of ``DTYPES``.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    import torch

    resolved: torch.dtype = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    return resolved
