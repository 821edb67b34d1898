"""The default batch size in patches, determined from the free memory.

A batch may use a quarter of the free memory, estimated from the bytes per patch that were measured for the family of
networks. It has at most ``MOST_PATCHES`` patches, because larger batches are not faster. The number is rounded down
to a power of two, so that small changes of the free memory have no effect. docs/scaling.md has the measurements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchprism.support.memory import free_memory

if TYPE_CHECKING:
    from patchprism.backbones import Backbone, BackboneRecord

# On a CPU, this is enough to keep all cores busy, and few enough that the working set of attention stays in the cache.
MOST_PATCHES = {"cpu": 4096, "cuda": 65536, "mps": 16384}
# The activations of a convolutional network exceed every cache from the first block on, so large batches only use more
# memory: efficientnet_lite2 at 224 on two cores processed 45.5, 43.9 and 44.7 photos/s in batches of 4, 20 and 80.
MOST_CONVOLUTION_PATCHES_ON_CPU = 1024
LEAST_PATCHES = 256
SHARE = 0.25

# Numbers per patch at the peak of a forward pass. A transformer keeps the residual, query, key and value, and the
# MLP's hidden layer (4 D) before and after its activation: 14 to 22 D were measured for ViT-S/14 (batches of 64 to 4
# photos at 224). The peak of a convolutional network is in its first blocks and is proportional to the pixels of a
# patch: 62 kB per patch of 16 x 16 pixels were measured for efficientnet_lite2, which is 61 numbers per pixel.
_TRANSFORMER_NUMBERS = 20
_CONVOLUTION_NUMBERS = 64


def patches_per_batch(backbone: Backbone, *, free: int | None = None) -> int:
    """Maximum number of patches in a batch for a backbone on its device.

    Parameters
    ----------
    free : int, optional
        Free memory in bytes; by default what is free on the device now.
    """
    import torch

    kind = backbone.device.type
    if free is None:
        free = int(torch.cuda.mem_get_info(backbone.device)[0]) if kind == "cuda" else free_memory()
    itemsize = torch.empty((), dtype=backbone.dtype).element_size()
    return patches_for(backbone.record, kind=kind, itemsize=itemsize, free=free)


def patches_for(record: BackboneRecord, *, kind: str, itemsize: int, free: int) -> int:
    """Maximum number of patches in a batch, from the record of a model.

    Parameters
    ----------
    kind : str
        Type of the device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
    itemsize : int
        Bytes per number in the dtype that the network computes in.
    free : int
        Free memory in bytes.
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
    """Approximate memory in bytes for a forward pass of one square photo of ``size`` pixels, with its pixels."""
    patches = (size // record.patch_size) ** 2
    numbers = 0  # unknown for a function of the user
    if record.heads:
        numbers = _TRANSFORMER_NUMBERS * record.width
    elif record.family != "callable":
        numbers = _CONVOLUTION_NUMBERS * record.patch_size**2
    return 4 * (3 * size**2 + patches * numbers)
