"""Frozen networks that turn pixels into patch tokens. Names are imported on first use; importing loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchprism.backbones.base import Backbone
    from patchprism.backbones.record import BackboneRecord, Identity, Progress, WeightsOrigin
    from patchprism.backbones.registry import download_weights, find_record, load_backbone, records
    from patchprism.backbones.weights import locate_weights

_HOMES = {
    "Backbone": "base",
    "BackboneRecord": "record",
    "Identity": "record",
    "Progress": "record",
    "WeightsOrigin": "record",
    "download_weights": "registry",
    "find_record": "registry",
    "load_backbone": "registry",
    "locate_weights": "weights",
    "records": "registry",
}

__all__ = [
    "Backbone",
    "BackboneRecord",
    "Identity",
    "Progress",
    "WeightsOrigin",
    "download_weights",
    "find_record",
    "load_backbone",
    "locate_weights",
    "records",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'patchprism.backbones' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"patchprism.backbones.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
