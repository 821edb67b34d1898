"""Frozen networks that turn pixels into patch tokens. Importing it loads no torch."""

from patchprism.backbones.base import Backbone
from patchprism.backbones.record import BackboneRecord, Identity, Progress, WeightsOrigin
from patchprism.backbones.registry import download_weights, find_record, load_backbone, records
from patchprism.backbones.weights import locate_weights

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
