"""The network that video tests share."""

from __future__ import annotations

import pytest
from video_clips import MODEL

import patchprism


@pytest.fixture(scope="session")
def backbone():
    return patchprism.load_backbone(MODEL)
