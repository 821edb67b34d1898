"""The device on which a network computes, and its precision. Importing it loads no torch."""

from __future__ import annotations

from itertools import chain, takewhile
from typing import TYPE_CHECKING

from patchprism.errors import OptionError
from patchprism.support import checks

if TYPE_CHECKING:
    import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device meant by ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or e.g. ``"cuda:1"``.

    Raises
    ------
    OptionError
        If the name is not one of these, or this machine has no such device.
    """
    device = checks.device("device", device)
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    try:
        resolved = torch.device(device)
    except Exception as error:  # torch raises several
        raise OptionError(
            f"device {checks.short_repr(device)} is not a torch device", option="device"
        ) from error
    there = {"cuda": torch.cuda.device_count() if has_cuda else 0, "mps": int(has_mps), "cpu": 1}
    if (resolved.index or 0) >= there[resolved.type]:
        raise OptionError(
            f"device {checks.short_repr(device)} is not available on this machine", option="device"
        )
    return resolved


def cpu_flags() -> frozenset[str]:
    """Features of the x86 processor by their Linux names, and its maker: ``{"amx_bf16", "GenuineIntel", ...}``.

    Empty on other systems than Linux.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            first = list(takewhile(str.strip, lines))  # until the empty line after the first processor
    except OSError:
        return frozenset()
    values = [line.partition(":")[2].split() for line in first if line.startswith(("flags", "vendor_id"))]
    return frozenset(chain.from_iterable(values))


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype meant by a name; ``"auto"`` is float32, so that every device gives the same colours.

    Raises
    ------
    OptionError
        If the name is not one of ``checks.DTYPES``.
    """
    dtype = checks.dtype("dtype", dtype, allowed=checks.DTYPES)
    import torch

    resolved: torch.dtype = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    return resolved
