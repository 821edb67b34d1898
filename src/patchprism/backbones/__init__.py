"""Frozen networks that turn pixels into patch tokens."""
