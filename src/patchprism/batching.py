"""How many patches go through a network at once, when nobody says: found from the memory that is free.

The rule: a batch may take a quarter of the free memory, by the bytes a patch that were measured for the family
of networks; at most ``MOST_PATCHES`` of the device, beyond which nothing gets faster; rounded down to a power
of two, so that a little more or less free memory changes nothing. docs/scaling.md has the measurements.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchprism.backbones import Backbone, BackboneRecord

# On a CPU: enough to fill the cores' matrix products, few enough that attention's working set stays in cache.
MOST_PATCHES = {"cpu": 4096, "cuda": 65536, "mps": 16384}
# A convolutional network's activations outgrow every cache from the first block on, and large batches only take
# memory: efficientnet_lite2 at 224 on two cores did 45.5, 43.9 and 44.7 photos/s in batches of 4, 20 and 80.
MOST_CONVOLUTION_PATCHES_ON_CPU = 1024
LEAST_PATCHES = 256
SHARE = 0.25

# Numbers a patch at the peak of a forward pass. A transformer holds the residual, query, key and value, and the
# MLP's hidden layer (4 D) before and after its activation: measured 14 to 22 D for ViT-S/14 (batches of 64 to
# 4 photos at 224). A convolutional network's peak lies in its first blocks and goes with the patch's pixels:
# measured 62 kB a patch of 16 x 16 pixels for efficientnet_lite2, 61 numbers a pixel.
_TRANSFORMER_NUMBERS = 20
_CONVOLUTION_NUMBERS = 64


def patches_a_batch(backbone: Backbone, *, free: int | None = None) -> int:
    """Patches of a batch for a backbone on its device.

    Parameters
    ----------
    backbone : Backbone
    free : int, optional
        Bytes of memory to reckon with; by default those that are free on the device now.
    """
    import torch

    kind = backbone.device.type
    if free is None:
        free = int(torch.cuda.mem_get_info(backbone.device)[0]) if kind == "cuda" else free_memory()
    itemsize = torch.empty((), dtype=backbone.dtype).element_size()
    return patches_for(backbone.record, kind=kind, itemsize=itemsize, free=free)


def patches_for(record: BackboneRecord, *, kind: str, itemsize: int, free: int) -> int:
    """The rule itself.

    Parameters
    ----------
    record : BackboneRecord
    kind : str
        The device's kind, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    itemsize : int
        Bytes of a number that the network computes with.
    free : int
        Bytes.
    """
    numbers = (
        _TRANSFORMER_NUMBERS * record.width if record.heads else _CONVOLUTION_NUMBERS * record.patch_size**2
    )
    fitting = int(SHARE * free / (numbers * itemsize))
    most = MOST_PATCHES.get(kind, MOST_PATCHES["cpu"])
    if kind == "cpu" and not record.heads:
        most = MOST_CONVOLUTION_PATCHES_ON_CPU
    bounded = max(LEAST_PATCHES, min(fitting, most))
    return int(1 << (bounded.bit_length() - 1))


def bytes_for(size: int, record: BackboneRecord) -> int:
    """About how many bytes of memory one square photo of ``size`` pixels takes: its pixels, and a forward pass."""
    patches = (size // record.patch_size) ** 2
    numbers = 0  # of a function of the user's own nothing is known
    if record.heads:
        numbers = _TRANSFORMER_NUMBERS * record.width
    elif record.family != "callable":
        numbers = _CONVOLUTION_NUMBERS * record.patch_size**2
    return 4 * (3 * size**2 + patches * numbers)


def free_memory() -> int:
    """Bytes of main memory that this process may still take: the system's, or its control group's if that is less."""
    free = 4 << 30  # where nothing tells; enough for any batch of the CPU's
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            return free
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, max(0, int((root / limit).read_text()) - int((root / used).read_text())))
        except (OSError, ValueError):  # no limit reads "max"
            continue
    return free


# glibc's numbers of what mallopt sets.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = (1 << 31) - 1


def keep_memory() -> None:
    """Have the C library keep what is freed for the next batch; for processes that are our own.

    By default it hands every large array back to the system as it is freed, and asks for it anew: of
    efficientnet_lite2's forward at 448 on a CPU, that was a tenth to a half (10,000 page faults a photo).
    :func:`give_back_memory` still returns what is free, and nothing is held beyond the largest batch.
    """
    with contextlib.suppress(OSError, AttributeError):  # glibc's own
        library = ctypes.CDLL(None)
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            library.mallopt(parameter, _LARGEST)


def give_back_memory() -> None:
    """Ask the C library to return what was freed, which it keeps in pieces that the next batch does not fit into.

    Measured over 200 photos at 224 through efficientnet_lite2, asked after every 64: see docs/scaling.md.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's own; elsewhere there is nothing to ask
        ctypes.CDLL(None).malloc_trim(0)
