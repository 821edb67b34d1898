"""The version of PatchPrism."""

__version__ = "0.1.0"
