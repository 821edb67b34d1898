"""Features on disk: a Zarr v3 folder with the patch tokens of photos. docs/store.md describes its layout."""

from __future__ import annotations

from patchprism.features.store.reader import PhotoRow, StoredFeatures, is_store

__all__ = ["PhotoRow", "StoredFeatures", "is_store"]
