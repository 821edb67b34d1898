"""Features on disk: a Zarr v3 folder that keeps what a network made of photos. docs/store.md has the layout."""

from __future__ import annotations

from patchprism.features.store.reader import PhotoRow, StoredFeatures, is_store

__all__ = ["PhotoRow", "StoredFeatures", "is_store"]
