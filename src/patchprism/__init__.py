"""PatchPrism: the patch features of vision transformers, split into colour.

Public names are imported when they are first used, so importing the package loads neither torch nor
scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from patchprism.support.version import __version__

if TYPE_CHECKING:
    from patchprism import errors
    from patchprism.backbones import Backbone, load_backbone
    from patchprism.errors import PatchPrismError
    from patchprism.features.patch_features import PatchFeatures
    from patchprism.features.store import StoredFeatures
    from patchprism.lenses.comparison import Comparison, compare
    from patchprism.photos.framing import Framing
    from patchprism.photos.images import read_photo
    from patchprism.pictures.outputs import LensResult
    from patchprism.prism.estimator import Prism
    from patchprism.prism.head import Head
    from patchprism.prism.pca import StreamingPCA
    from patchprism.views.extract import extract
    from patchprism.views.video import render_video
    from patchprism.views.visualization import Visualization
    from patchprism.views.visualize import visualize


_HOMES = {
    "Backbone": "backbones",
    "Comparison": "lenses.comparison",
    "Framing": "photos.framing",
    "Head": "prism.head",
    "LensResult": "pictures.outputs",
    "PatchFeatures": "features.patch_features",
    "PatchPrismError": "errors",
    "Prism": "prism.estimator",
    "StoredFeatures": "features.store",
    "StreamingPCA": "prism.pca",
    "Visualization": "views.visualization",
    "compare": "lenses.comparison",
    "extract": "views.extract",
    "load_backbone": "backbones",
    "read_photo": "photos.images",
    "render_video": "views.video",
    "visualize": "views.visualize",
}

__all__ = [
    "Backbone",
    "Comparison",
    "Framing",
    "Head",
    "LensResult",
    "PatchFeatures",
    "PatchPrismError",
    "Prism",
    "StoredFeatures",
    "StreamingPCA",
    "Visualization",
    "__version__",
    "compare",
    "errors",
    "extract",
    "load_backbone",
    "read_photo",
    "render_video",
    "visualize",
]


def __getattr__(name: str) -> Any:
    if name == "errors":  # the import also sets the attribute of the package
        return importlib.import_module("patchprism.errors")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"patchprism.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'patchprism' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
