"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SHARED_DOGS = Path(__file__).resolve().parents[2] / "shared" / "dogs"


@pytest.fixture(scope="session")
def shared_dogs() -> Path:
    """The folder of the seed's four dogs, which lies beside the repository and not in it."""
    # A worktree lies elsewhere than the main checkout, but beside the same folder.
    if not (SHARED_DOGS / "1.jpg").is_file():
        pytest.skip("the seed's dogs are not beside this repository")
    return SHARED_DOGS


@pytest.fixture
def photo() -> np.ndarray:
    """A photo of 48 x 64 pixels, smooth enough for JPEG, that no flip or turn maps to itself."""
    y, x = np.mgrid[:48, :64]
    red = 4 * x
    green = 5 * y
    blue = 255 - 2 * x - 2 * y
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)
