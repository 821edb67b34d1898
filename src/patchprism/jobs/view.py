"""A view: what came of some photos, ready to draw and to save."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.jobs.hints import hints_about
from patchprism.jobs.writers import (
    _check_distinct,
    _write_drawn,
    check_output_options,
    paths_of,
    write_arrays,
    write_files,
    write_report,
)
from patchprism.photos.paths import unique_stems
from patchprism.photos.sources import StoredPhoto
from patchprism.pictures.outputs import LensResult, figure_jobs, photo_jobs
from patchprism.pictures.picture import PictureOptions, draw_picture, needs_photo, without_photo
from patchprism.pictures.render import (
    fg_mask_figure,
    results_figure,
    score_histogram,
    write_picture,
)
from patchprism.support import checks
from patchprism.support.reading import BYTES_A_PIXEL, Note, claim, reading
from patchprism.support.words import counted
from patchprism.support.written import Output, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import BackboneRecord, WeightsOrigin
    from patchprism.features.extraction import Photos
    from patchprism.features.patch_features import PatchFeatures
    from patchprism.photos.framing import Framing
    from patchprism.prism.estimator import PhotoColors, Prism
    from patchprism.support.written import Stamp


REPORT_VERSION = 1


@dataclass(frozen=True)
class Failure:
    """A photo that could not be done, and why."""

    photo: str
    reason: str


@dataclass(kw_only=True)
class View:
    """The colours of some photos, and all that led to them; `Visualization` adds what notebooks show.

    Sequences have one entry a photo, in the order given, photos that failed left out.

    Attributes
    ----------
    features : PatchFeatures
    prism : Prism
    parts : list of PhotoColors
    crops : list of tuple of float
        Left, top, right, bottom of what the network saw, in the photo's pixels.
    sizes : list of tuple of int
        Each photo's (H, W).
    record : BackboneRecord
    weights : WeightsOrigin
    framing : Framing
    settings : dict
        Every option, as it was used.
    fitted_here : bool
        Whether the prism was fitted on these photos.
    failures : list of Failure
    seconds : dict
        Time spent in each stage.
    origin : dict
        What the features depend on, as a prism keeps it.
    store : list of str or None
        Where the features were read from a store: its path, and the options of a sample.
    plain : list of str
        Photos of one colour, or of noise.
    notes : list of str
        What folders left out, and the like. What is to be said of single photos is in ``photos.notes``.
    """

    photos: Photos
    framing: Framing
    features: PatchFeatures
    prism: Prism
    parts: list[PhotoColors]
    crops: list[tuple[float, float, float, float]]
    sizes: list[tuple[int, int]]
    record: BackboneRecord
    weights: WeightsOrigin
    settings: dict[str, Any]
    fitted_here: bool
    failures: list[Failure]
    seconds: dict[str, float]
    origin: dict[str, Any] = field(default_factory=dict)
    store: list[str] | None = None
    plain: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The photos, as they were named."""
        return self.photos.names

    @property
    def gone(self) -> list[str]:
        """Photos that are not there any more, are others by now, or not to be asked for; shown as plain grey.

        A store's photos are read when they are first shown. Those that were not yet are read for this.
        """
        return self.photos.gone

    @property
    def colors(self) -> list[NDArray[np.float32]]:
        """Colours, each (h, w, 3) float32 in [0, 1]; the background is 0."""
        return [part.rgb for part in self.parts]

    @property
    def colors_all(self) -> list[NDArray[np.float32]]:
        """All-patch pictures, each (h, w, 3) float32 in [0, 1]."""
        return [part.rgb_all for part in self.parts]

    @property
    def foreground(self) -> list[NDArray[np.bool_]]:
        """Foreground, each (h, w) bool."""
        return [part.foreground for part in self.parts]

    @property
    def scores(self) -> list[NDArray[np.float32]]:
        """Scores, each (h, w) float32 in [0, 1]."""
        return [part.score for part in self.parts]

    def __len__(self) -> int:
        return len(self.parts)

    def picture(
        self,
        index: int,
        *,
        overlay_alpha: float | None = None,
        upsample: str = "nearest",
        background: str = "black",
        basis: str = "object",
    ) -> NDArray[np.uint8]:
        """One photo's picture at its own resolution and shape, (H, W, 3) uint8.

        Parameters
        ----------
        index : int
            Counted from 0, or from the end with negative numbers.
        overlay_alpha : float in [0, 1], optional
            Lay the colours over the photo with this opacity, the background showing the photo as it is.
        upsample : {"nearest", "bilinear", "guided"}
            From patches to pixels; see :mod:`patchprism.pictures.upsample`.
        background : {"black", "grey", "photo"}
            What shows where there is no colour; ``overlay_alpha`` goes before it.
        basis : {"object", "all"}
            Colours of the foreground, or of all patches.

        Raises
        ------
        OptionError
            If an option has a value that is not allowed, or there is no such photo.
        """
        index = checks.integer("index", index, low=-len(self), high=len(self) - 1) % len(self)
        chosen = PictureOptions(
            overlay_alpha=overlay_alpha, upsample=upsample, background=background, basis=basis
        )
        return draw_picture(
            self.parts[index],
            partial(self.photos.read, index),
            crop=self.crops[index],
            size=self.sizes[index],
            overlay_alpha=chosen.overlay_alpha,
            upsample=chosen.upsample,
            background=chosen.background,
            basis=chosen.basis,
        )

    def figures(self) -> dict[str, Callable[[], NDArray[np.uint8]]]:
        """What draws each figure, (H, W, 3) uint8, by the name of its file."""
        shown = [self.photos.shown(i, self.framing) for i in range(len(self))]
        names = [Path(name).name for name in self.names]
        side: Any = self.prism.side_
        return {
            "fg_mask": partial(fg_mask_figure, shown, self.scores, self.foreground, names=names, side=side),
            "results": partial(results_figure, shown, self.colors, names=names),
            "results_raw": partial(results_figure, shown, self.colors_all, names=names),
            "histogram": self._histogram,
        }

    def _histogram(self) -> NDArray[np.uint8]:
        scores = np.concatenate([score.ravel() for score in self.scores])
        side: Any = self.prism.side_
        return score_histogram(scores, threshold=None if side == "none" else self.prism.threshold_, side=side)

    def __repr__(self) -> str:
        prism = self.prism
        kept = sum(int(mask.sum()) for mask in self.foreground)
        split = "all patches" if prism.side_ == "none" else f"score {prism.side_} {prism.threshold_:.3g}"
        split += " (undecided)" if prism.undecided_ else ""
        return (
            f"{type(self).__name__}({counted(len(self), 'photo')}, {self.record.name}, {split}, "
            f"{kept / self.features.n_patches:.0%} foreground)"
        )

    def save(
        self,
        out: str | os.PathLike[str],
        *,
        overlay_alpha: float | None = None,
        arrays: bool = False,
        format: str = "png",
        upsample: str = "nearest",
        lenses: Sequence[LensResult] = (),
        pca: bool = True,
        background: str = "black",
        basis: str = "object",
    ) -> list[Path] | list[str]:
        """Write figures, pictures, the prism and the report into a folder.

        Parameters
        ----------
        out : path
            A folder, made if it is missing, or an address that fsspec opens. Files that an earlier job wrote there
            are replaced, each whole or not at all; files of the user's are never replaced, nor is the prism that was
            loaded.
        overlay_alpha : float in [0, 1], optional
            Also write ``<stem>.overlay.<format>``, the photo under its colours.
        arrays : bool
            Also write ``<stem>.npz`` with ``score``, ``foreground``, ``rgb`` and ``rgb_all``.
        format : {"png", "jpg"}
        upsample : {"nearest", "bilinear", "guided"}
            From patches to pixels in the pictures of photos.
        lenses : sequence of LensResult
            What :func:`patchprism.lenses.look_through` found: written too.
        pca : bool
            Whether the figures, pictures and arrays of the main job are written; prism and report always are.
        background, basis
            What a photo's pictures show; as in :meth:`picture`. The figures show both bases.

        Returns
        -------
        list of Path, or of str for an address
            What was written: figures first, then each photo's files, the prism, the report.

        Raises
        ------
        OptionError
            If an option has a value that is not allowed; nothing is written then.
        OutputError
            If a file cannot be written, or would replace one that PatchPrism did not write.
        """
        out = checks.path("out", out)
        chosen = check_output_options(out, overlay_alpha, format, upsample, background, basis, arrays)
        overlay_alpha, arrays, format = chosen.overlay_alpha, chosen.arrays, chosen.format
        upsample, background, basis = chosen.upsample, chosen.background, chosen.basis
        pca, lenses = checks.flag("pca", pca), _lens_results(lenses)
        folder = Path()
        start = perf_counter()
        stems = unique_stems([Path(name).name for name in self.names])
        jobs: list[tuple[Path, Callable[[Path], object]]] = [
            (folder / f"{name}.{format}", partial(_write_drawn, draw))
            for name, draw in (self.figures().items() if pca else ())
        ]
        if lenses:
            jobs += figure_jobs(lenses, folder, arrays=arrays, format=format)
        of_photo: list[list[Path]] = []
        for i, stem in enumerate(stems):
            made = (
                self._photo_jobs(i, folder / stem, upsample, basis, overlay_alpha, arrays, format, background)
                if pca
                else []
            )
            if lenses:
                made += photo_jobs(lenses, i, folder / stem, arrays=arrays, format=format)
            of_photo.append([path for path, _ in made])
            jobs += made
        _check_distinct([path for path, _ in jobs])
        read: list[str | os.PathLike[str]] = []
        for source in self.photos.sources:
            if isinstance(source, StoredPhoto):
                read += source.paths
            elif isinstance(source, (str, os.PathLike)):
                read.append(source)
        output = Output(out, prism=self.prism.loaded_from)
        output.claim([*(path.name for path, _ in jobs), "prism.safetensors", "report.json"], read)
        write_files(output, jobs)
        self.failures += lost_since(self.photos, self.failures)
        names = [path.name for path, _ in jobs if path.name in output.written]
        names += output.save_prism(self.prism.save)
        self.seconds["write"] = perf_counter() - start
        files = [[path.name for path in paths if path.name in output.written] for paths in of_photo]
        write_report(output, "report.json", self.report(files, lenses, output.written))
        output.finish()
        return paths_of(output, [*names, "report.json"])

    def _photo_jobs(
        self,
        index: int,
        stem: Path,
        upsample: str,
        basis: str,
        overlay_alpha: float | None,
        arrays: bool,
        format: str,
        background: str,
    ) -> list[tuple[Path, Callable[[Path], object]]]:
        def named(suffix: str) -> Path:
            return stem.with_name(f"{stem.name}.{suffix}")

        draw = partial(self._write_picture, index, upsample=upsample, basis=basis)
        jobs: list[tuple[Path, Callable[[Path], object]]] = [
            (named(f"pca.{format}"), partial(draw, background=background))
        ]
        if overlay_alpha is not None:
            jobs.append((named(f"overlay.{format}"), partial(draw, overlay_alpha=overlay_alpha)))
        if arrays:
            jobs.append((named("npz"), partial(write_arrays, self.parts[index])))
        return jobs

    def all_notes(self) -> list[Note]:
        """What is to be said of the job and of its photos beside the hints."""
        return all_notes(self.notes, self.photos)

    def _write_picture(
        self,
        index: int,
        path: Path,
        *,
        upsample: str,
        basis: str,
        overlay_alpha: float | None = None,
        background: str = "black",
    ) -> bool:
        """Write one photo's picture, without the photo where that is gone; an overlay is not written then (False)."""
        pixels = self.sizes[index][0] * self.sizes[index][1]
        with reading():
            claim(pixels * BYTES_A_PIXEL, self.names[index])
            return self._written(
                index,
                path,
                upsample=upsample,
                basis=basis,
                overlay_alpha=overlay_alpha,
                background=background,
            )

    def _written(
        self,
        index: int,
        path: Path,
        *,
        upsample: str,
        basis: str,
        overlay_alpha: float | None,
        background: str,
    ) -> bool:
        picture = self.picture(
            index, overlay_alpha=overlay_alpha, upsample=upsample, background=background, basis=basis
        )
        if needs_photo(
            overlay_alpha=overlay_alpha, upsample=upsample, background=background
        ) and self.photos.is_gone(index):
            if overlay_alpha is not None:
                return False
            upsample, background = without_photo(upsample, background)
            picture = self.picture(index, upsample=upsample, background=background, basis=basis)
        write_picture(path, picture)
        return True

    def hints(self) -> list[str]:
        """What a person should know before believing the pictures, in whole sentences."""
        shares = np.array([mask.mean() for mask in self.foreground])
        photos = [{"photo": name, **doubts} for name, doubts in zip(self.names, self.doubts(), strict=True)]
        return hints_about(shares, self.prism, fitted_here=self.fitted_here, plain=self.plain, photos=photos)

    def doubts(self) -> list[dict[str, float]]:
        """What tells whether each photo's foreground can be believed, a dict per photo.

        ``border_ratio``, ``contrast`` and ``likeness`` are as :meth:`Prism.doubts <patchprism.Prism.doubts>`
        has them;
        ``agreement``, of photos that were labelled for this view's fit, is the intersection over union of their
        foreground with their own labels.
        """
        agreements = self.prism.agreements if self.fitted_here else {}
        found = []
        for i, (tokens, mask) in enumerate(zip(self.features, self.foreground, strict=True)):
            said = self.prism.doubts(tokens, mask)
            found.append(said | {"agreement": round(agreements[i], 4)} if i in agreements else said)
        return found

    def report(
        self,
        files: Sequence[Sequence[str]] | None = None,
        lenses: Sequence[LensResult] = (),
        written: Mapping[str, Stamp] | None = None,
    ) -> dict[str, Any]:
        """All there is to say about the job, as JSON values: what ``report.json`` holds.

        Parameters
        ----------
        files : sequence of sequence of str, optional
            Names of the files written for each photo.
        lenses : sequence of LensResult
            Whose reports are put in under ``lenses``.
        written : mapping of str to Stamp, optional
            Every file that was written, put in under ``files``.
        """
        from patchprism.support.version import __version__

        record = self.record
        doubts = self.doubts()
        photos = [
            {
                "photo": name,
                "size": list(size),
                "grid": list(part.score.shape),
                "crop": [round(edge, 3) for edge in crop],
                "foreground": round(float(part.foreground.mean()), 6),
                **({"files": list(files[i])} if files else {}),
                **({"notes": list(self.photos.notes[i])} if i in self.photos.notes else {}),
                **({"photo_missing": True} if i in self.photos.lost else {}),
                **({"plain": True} if name in self.plain else {}),
                **doubts[i],
            }
            for i, (name, size, part, crop) in enumerate(
                zip(self.names, self.sizes, self.parts, self.crops, strict=True)
            )
        ]
        return {
            "version": REPORT_VERSION,
            "patchprism": __version__,
            "model": {
                "name": record.name,
                "patch_size": record.patch_size,
                "width": record.width,
                "weights": self.weights.report(),
            },
            "settings": self.settings,
            "framing": self.framing.to_dict(),
            "prism": {"fitted_here": self.fitted_here, **self.prism.summary()},
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            **({"files": as_json(written)} if written else {}),
            "photos": photos,
            **({"lenses": {lens.name: lens.report for lens in lenses}} if lenses else {}),
            "hints": self.hints(),
            "notes": self.notes,
            "failures": [{"photo": failure.photo, "reason": failure.reason} for failure in self.failures],
        }


def lost_since(photos: Photos, failures: Sequence[Failure]) -> list[Failure]:
    """Photos that were read, but could not be read again, as failures that are not among those yet."""
    told = {failure.photo for failure in failures}
    lost = [Failure(photos.names[index], reason) for index, reason in sorted(photos.lost.items())]
    return [failure for failure in lost if failure.photo not in told]


def all_notes(of_job: Sequence[str], photos: Photos) -> list[Note]:
    """Notes of a job, then those of its photos in their order."""
    of_photos = [Note(photos.names[i], text) for i in sorted(photos.notes) for text in photos.notes[i]]
    return [*(Note("", text) for text in of_job), *of_photos]


def _lens_results(lenses: Any) -> Sequence[LensResult]:
    """What lenses found, if it is that."""
    from patchprism.pictures.outputs import LensResult

    found = lenses if isinstance(lenses, (list, tuple)) else [lenses]
    for each in found:
        if not isinstance(each, LensResult):
            checks.refuse("lenses", "what look_through found", lenses)
    return found
