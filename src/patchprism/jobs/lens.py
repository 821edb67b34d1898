"""The interface of lenses for jobs. The lenses are in `patchprism.lenses`, which jobs may not import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from fractions import Fraction

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.report import Colored
    from patchprism.jobs.run import Run
    from patchprism.pictures.options import PictureOptions
    from patchprism.pictures.outputs import LensResult, PhotoLook
    from patchprism.prism.colors import PhotoColors

    Pixels = Any  # a float tensor or array, (3, H, W)
    Score = NDArray[np.floating[Any]]


class PhotoLens(Protocol):
    """A lens that is ready to look at photos, one at a time, on any worker."""

    @property
    def name(self) -> str:
        """From ``patchprism.lenses.LENSES``."""

    @property
    def needs_backbone(self) -> bool:
        """Whether it runs the network once more."""

    @property
    def key(self) -> str:
        """Digest of everything that its results depend on, except the photo and its tokens."""

    def look(self, row: PhotoRow, tokens: Tokens, part: PhotoColors, index: int) -> PhotoLook:
        """Look at one photo."""

    def result(self, entries: Sequence[Any]) -> LensResult:
        """Combine the entries of all photos."""


class FrameLens(Protocol):
    """A lens that is ready to colour the frames of a clip."""

    @property
    def meaning(self) -> str:
        """Meaning of its colours, for the summary."""

    def paint(self, tokens: Tokens, score: Score, pixels: Pixels) -> NDArray[np.uint8]:
        """Colours of a frame's patches, (h, w, 3) uint8, from tokens (h, w, D), score (h, w), and input."""


class ClipLooking(Protocol):
    """The lens that a clip is coloured with."""

    @property
    def shows_foreground(self) -> bool:
        """Whether its colours depend on the foreground, so that hints about the foreground matter."""

    def fit(self, colored: Colored, run: Run, frames: AskedFrames) -> FrameLens:
        """The lens, fitted to the frames of a source."""


class AskedFrames(Protocol):
    """Frames that a lens asks for in addition to those of the fit."""

    @property
    def backbone(self) -> Backbone:
        """The network."""

    def at(self, time: Fraction) -> tuple[PhotoRow, Tokens]:
        """The first frame at or after a time, in seconds, with its tokens, (h, w, D)."""

    def pixels(self, count: int) -> Iterator[Pixels]:
        """Framed pixels of at most this many frames, evenly spread, each (3, H, W)."""


class Looking(Protocol):
    """The lenses of a job."""

    @property
    def needs_backbone(self) -> bool:
        """Whether a lens runs the network once more."""

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a network that does not provide what the lenses need, before any photo is read."""

    def files(self, stems: Sequence[str], photos: Sequence[str], pictures: PictureOptions) -> Iterator[str]:
        """Names of the files that may be written, known before anything is computed."""

    def fit(self, colored: Colored, run: Run) -> Sequence[PhotoLens]:
        """The lenses, fitted to the photos."""

    def lost(self) -> Iterable[tuple[str, str]]:
        """Photos that could not be read again, and why; they are forgotten afterwards."""
