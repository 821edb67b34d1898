"""The models in PatchPrism's catalogue, whose weights are downloaded from their authors. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchprism.backbones.catalog import RECORDS
from patchprism.backbones.devices import resolve_device, resolve_dtype
from patchprism.backbones.weights import obtain_weights
from patchprism.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from patchprism.backbones.base import Backbone
    from patchprism.backbones.record import BackboneRecord, Progress, WeightsOrigin

    Loader = Callable[[BackboneRecord, WeightsOrigin, torch.device, torch.dtype], Backbone]


def find_record(name: str) -> BackboneRecord:
    """The record of a model of the catalogue."""
    return RECORDS[name]


def fetch(name: str, progress: Progress | None = None) -> WeightsOrigin:
    """Fetch a model's weights, unless they are here already; see :func:`~patchprism.backbones.download_weights`."""
    return obtain_weights(RECORDS[name], progress=progress)


def load(
    name: str, *, weights: str | None, device: str, dtype: str, progress: Progress | None, download: bool
) -> Backbone:
    """A model of the catalogue with its own weights, or with others; see :func:`~patchprism.load_backbone`."""
    record = RECORDS[name]
    if record.family not in FAMILIES:
        raise ModelError(f"model {name!r}: unknown family {record.family!r}, known are {', '.join(FAMILIES)}")
    loader = FAMILIES[record.family]()
    # A wrong device is refused before gigabytes are fetched for it.
    torch_device, torch_dtype = resolve_device(device), resolve_dtype(dtype)
    origin = obtain_weights(record, weights, progress=progress, download=download)
    return loader(record, origin, torch_device, torch_dtype)


def _dinov2() -> Loader:
    from patchprism.backbones import dinov2

    return dinov2.load


def _dinov3() -> Loader:
    from patchprism.backbones import dinov3

    return dinov3.load


def _efficientnet() -> Loader:
    from patchprism.backbones import efficientnet

    return efficientnet.load


def _focus() -> Loader:
    from patchprism.backbones import focus

    return focus.load


# The loader of each family of records.
FAMILIES: dict[str, Callable[[], Loader]] = {
    "dinov2": _dinov2,
    "dinov3": _dinov3,
    "efficientnet": _efficientnet,
    "focus": _focus,
}
