"""How a job is run, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchprism.features.extraction import extract
from patchprism.jobs.settings import Stopwatch
from patchprism.photos.sources import read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.features.extraction import PhotoTokens
    from patchprism.jobs.engines import Engine
    from patchprism.jobs.source import Failure
    from patchprism.prism.estimator import Prism
    from patchprism.support.reading import Note

    Tell = Callable[[str, int, int | None], None]
    Reader = Callable[[str], NDArray[np.uint8]]
    Extract = Callable[..., Iterator[PhotoTokens]]


def no_progress(stage: str, done: int, total: int | None) -> None:
    """Progress callback that does nothing."""


def no_warning(text: str) -> None:
    """Warning callback that does nothing."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a job is run: nothing here changes its results.

    Attributes
    ----------
    engine : Engine
        Where the work is done.
    backbone : Backbone, optional
        A loaded backbone to use instead of loading the one that the settings name.
    extract : callable
        As :func:`~patchprism.features.extraction.extract`: photos -> tokens, for jobs in memory.
    reader : callable
        Reads a photo: name -> (H, W, 3) uint8.
    tell : callable
        Called with progress: ``tell(stage, done, total or None)``.
    warn : callable
        Called with warnings for the user before the network runs: ``warn(text)``.
    watch : Stopwatch
        Keeps the seconds of each stage.
    notes : list of Note
        Notes about the chosen network; notes about photos are kept elsewhere.
    """

    engine: Engine
    backbone: Backbone | None = None
    extract: Extract = extract
    reader: Reader = read_source
    tell: Tell = no_progress
    warn: Callable[[str], None] = no_warning
    watch: Stopwatch = field(default_factory=Stopwatch)
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """A seeded sample of the photos to fit on.

    Attributes
    ----------
    count : int, optional
        Number of photos; all by default.
    seed : int
        Random seed of the draw.
    """

    count: int | None = None
    seed: int = 0


ALL = Sample()


@dataclass(kw_only=True)
class Outcome:
    """The outcome of a job.

    Attributes
    ----------
    n_photos, n_patches : int
        Photos and patches done, without those that failed.
    failures : list of Failure
        Photos that could not be processed, and why.
    seconds : dict
        Time spent in each stage, in this run.
    missing : int
        Number of photos of a store that were missing when they were drawn.
    unasked : list of str
        Buckets and hosts with photos that may not be fetched.
    already : bool
        Whether a complete store of the same photos already existed.
    rows : list of dict
        Entries of the first photos, as in ``report.json``.
    hints : list of str
        What users should know before they rely on the pictures.
    notes : list of Note
        Notes, for example about contents of photos that are not read.
    written : list of str
        Paths or addresses of the files that were written: figures first, each photo's, the prism, the report.
    """

    n_photos: int
    n_patches: int
    failures: list[Failure]
    model: str
    weights_source: str
    seconds: dict[str, float]
    prism: Prism | None = None
    missing: int = 0
    unasked: list[str] = field(default_factory=list)
    already: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
