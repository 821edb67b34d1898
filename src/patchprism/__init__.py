"""PatchPrism: the patch features of vision transformers, split into colour.

Public names are imported when they are first used, so importing the package loads neither torch nor
scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from patchprism.support.version import __version__

if TYPE_CHECKING:
    from patchprism.backbones import Backbone, load_backbone
    from patchprism.errors import PatchPrismError
    from patchprism.features.patch_features import PatchFeatures
    from patchprism.photos.framing import Framing
    from patchprism.photos.images import read_photo
    from patchprism.prism.estimator import Prism
    from patchprism.prism.pca import StreamingPCA
    from patchprism.views.visualization import Visualization
    from patchprism.views.visualize import visualize


_HOMES = {
    "Backbone": "backbones",
    "Framing": "photos.framing",
    "PatchFeatures": "features.patch_features",
    "PatchPrismError": "errors",
    "Prism": "prism.estimator",
    "StreamingPCA": "prism.pca",
    "Visualization": "views.visualization",
    "load_backbone": "backbones",
    "read_photo": "photos.images",
    "visualize": "views.visualize",
}

__all__ = [
    "Backbone",
    "Framing",
    "PatchFeatures",
    "PatchPrismError",
    "Prism",
    "StreamingPCA",
    "Visualization",
    "__version__",
    "load_backbone",
    "read_photo",
    "visualize",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"patchprism.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'patchprism' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
