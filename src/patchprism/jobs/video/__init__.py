"""Videos: frames in the colours of one prism, in bounded memory. Needs the extra ``video`` (PyAV)."""

from __future__ import annotations

from patchprism.jobs.video.job import VideoReport, render_video

__all__ = ["VideoReport", "render_video"]
