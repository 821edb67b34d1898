"""timm without torchvision, which it needs only to augment training images. No build of it fits every torch."""

from __future__ import annotations

import sys
from unittest.mock import MagicMock

import pytest

MODULES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


def import_timm():
    """Import timm, with a substitute if torchvision is missing or does not fit."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        if "torchvision" not in str(error):
            pytest.importorskip("timm")
        for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]  # modules whose import failed halfway
        sys.modules.update({name: MagicMock() for name in MODULES})
        try:
            import timm
        finally:
            for name in MODULES:
                del sys.modules[name]
    return timm
