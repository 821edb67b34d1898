"""Lenses: ways to look at patch features across many photos."""
