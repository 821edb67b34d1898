"""The commands at any size: features into a store, a prism out of photos, pictures of photos.

What :func:`patchprism.visualize` does in memory for a handful of photos, these do in bounded memory for any
number, on an engine, and take up again what was broken off.
"""

from patchprism.jobs.streaming.features import extract_features, write_table
from patchprism.jobs.streaming.opened import Outcome
from patchprism.jobs.streaming.pictures import render_photos
from patchprism.jobs.streaming.prisms import fit_prism

__all__ = ["Outcome", "extract_features", "fit_prism", "render_photos", "write_table"]
