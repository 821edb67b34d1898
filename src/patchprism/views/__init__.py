"""`patchprism.visualize` and what it gives, for one call from Python."""
