"""PatchPrism: the patch features of vision transformers, split into colour.

Public names are imported when they are first used, so importing the package loads neither torch nor
scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchprism.backbones import Backbone, load_backbone
    from patchprism.errors import PatchPrismError
    from patchprism.features import PatchFeatures
    from patchprism.framing import Framing
    from patchprism.images import read_photo
    from patchprism.pca import StreamingPCA
    from patchprism.pipeline import visualize
    from patchprism.prism import Prism
    from patchprism.visualization import Visualization

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "backbones",
    "Framing": "framing",
    "PatchFeatures": "features",
    "PatchPrismError": "errors",
    "Prism": "prism",
    "StreamingPCA": "pca",
    "Visualization": "visualization",
    "load_backbone": "backbones",
    "read_photo": "images",
    "visualize": "pipeline",
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
