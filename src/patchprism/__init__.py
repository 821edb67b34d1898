"""PatchPrism: the patch features of vision transformers, split into colour."""

__version__ = "0.1.0"
