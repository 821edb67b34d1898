"""The commands at any size: features into a store, a prism out of photos, pictures of photos.

What :func:`patchprism.visualize` does in memory for a handful of photos, these do in bounded memory for any
number, on an engine, and take up again what was broken off.
"""

from patchprism.jobs.opened import Outcome
from patchprism.jobs.pictures import render_photos
from patchprism.jobs.prisms import fit_prism
from patchprism.jobs.stores import extract_features, write_table

__all__ = ["Outcome", "extract_features", "fit_prism", "render_photos", "write_table"]
