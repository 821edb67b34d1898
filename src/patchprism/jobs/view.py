"""A view: the results for some photos, ready to draw and to save."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.engines import open_engine
from patchprism.jobs.figures import first_photos, overview
from patchprism.jobs.fitting import fit as fit_prism
from patchprism.jobs.opened import Opened
from patchprism.jobs.pictures import Pictures
from patchprism.jobs.report import Colored, photo_entry, report_head, report_tail, with_notes
from patchprism.jobs.run import Outcome, Run
from patchprism.jobs.settings import Stopwatch, is_taught_on
from patchprism.jobs.source import Failure, MemorySource, rows_of
from patchprism.jobs.writers import (
    check_folder,
    paths_of,
)
from patchprism.pictures.histogram import count_scores
from patchprism.pictures.options import PictureOptions
from patchprism.pictures.picture import draw_picture
from patchprism.support import checks
from patchprism.support.reading import Note
from patchprism.support.words import counted
from patchprism.support.written import Output

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from patchprism.backbones import BackboneRecord, WeightsOrigin
    from patchprism.features.extraction import Photos
    from patchprism.features.patch_features import PatchFeatures
    from patchprism.photos.framing import Framing
    from patchprism.pictures.drawing import Drawing
    from patchprism.pictures.outputs import LensResult
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.estimator import Prism


@dataclass(kw_only=True)
class View:
    """The colours of photos, and everything they were made from; `Visualization` adds what notebooks show.

    Sequences have one entry per photo, in the order given, without the photos that failed.

    Attributes
    ----------
    features : PatchFeatures
    prism : Prism
    parts : list of PhotoColors
    crops : list of tuple of float
        The part of each photo that the network saw: left, top, right, bottom in the photo's pixels.
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
        Everything that the features depend on, as in a prism.
    store : list of str or None
        The path of the feature store and the options of a sample, if the features come from a store.
    n_stored : int or None
        Number of photos in the store that these photos, or some of them, come from.
    plain : list of str
        Photos of one colour, or of noise.
    notes : list of str
        Notes about the job, for example how many files of a folder were left out. Notes about single photos are in
        ``photos.notes``.
    called : str or None
        Label that distinguishes this network from another checkpoint of the same model.
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
    n_stored: int | None = None
    plain: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    called: str | None = None

    @property
    def label(self) -> str:
        """Label of the network."""
        return self.called or self.record.name

    @property
    def names(self) -> list[str]:
        """Names of the photos, as given."""
        return self.photos.names

    @property
    def gone(self) -> list[str]:
        """Photos of a store that are missing, have changed, or may not be fetched; they are shown as plain grey.

        Photos of a store are read when they are first shown. This property reads those that were not read yet.
        """
        return self.photos.gone

    @property
    def colors(self) -> list[NDArray[np.float32]]:
        """Colours, each (h, w, 3) float32 in [0, 1]; the background is 0."""
        return [part.rgb for part in self.parts]

    @property
    def colors_all(self) -> list[NDArray[np.float32]]:
        """Colours of all patches, each (h, w, 3) float32 in [0, 1]."""
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
        upsample: str = "auto",
        background: str = "black",
        basis: str = "object",
    ) -> NDArray[np.uint8]:
        """The picture of one photo at its own resolution, (H, W, 3) uint8.

        Parameters
        ----------
        index : int
            Counted from 0, or from the end with negative numbers.
        overlay_alpha : float in [0, 1], optional
            Show the colours over the photo with this opacity; the background shows the photo.
        upsample : {"auto", "nearest", "bilinear", "guided"}
            How patches become pixels; see :mod:`patchprism.pictures.upsample`. ``"auto"`` means ``"guided"`` if the
            photo is visible (an overlay, or ``background="photo"``), and ``"nearest"`` otherwise.
        background : {"black", "grey", "white", "photo", "transparent"}
            What is shown where there is no foreground; without effect if ``overlay_alpha`` is given. With
            ``"transparent"`` the picture has a fourth channel, the opacity.
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

    def figures(self, options: PictureOptions | None = None) -> dict[str, Drawing]:
        """Functions that draw the figures, by the name of the file; each returns an array, (H, W, 3) uint8.

        Parameters
        ----------
        options : PictureOptions, optional
            Only ``outline``, ``background`` and the options of figures have an effect.
        """
        colored, options = self._colored(), options or PictureOptions()
        counts = np.sum([count_scores(score) for score in self.scores], axis=0)
        inside = sum(int(mask.sum()) for mask in self.foreground)
        return overview(colored, first_photos(colored, len(self), options), counts, inside, options)

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
        upsample: str = "auto",
        lenses: Sequence[LensResult] = (),
        pca: bool = True,
        background: str = "black",
        basis: str = "object",
        masks: str | Sequence[str] = (),
        instances: bool = False,
        outline: bool = False,
        figure_format: str | None = None,
        dpi: int | None = None,
        width: float | str | None = None,
        columns: int | None = None,
        labels: str | Sequence[str] = ("names",),
        arrange: str = "beside",
        panels: str = "whole",
    ) -> list[Path] | list[str]:
        """Write figures, pictures, the prism and the report into a folder.

        Parameters
        ----------
        out : path
            A folder, which is created if it is missing, or an address that fsspec opens. Files that an earlier job
            wrote there are replaced. Your own files are never replaced, and neither is the prism that was loaded.
        overlay_alpha : float in [0, 1], optional
            Also write ``<stem>.overlay.<format>``, the colours over the photo with this opacity.
        arrays : bool
            Also write ``<stem>.npz`` with ``score``, ``foreground``, ``rgb`` and ``rgb_all``.
        format : {"png", "jpg"}
        upsample : {"auto", "nearest", "bilinear", "guided"}
            How patches become pixels in pictures of photos, masks and figures. ``"auto"`` means ``"guided"`` for
            masks and overlays, and ``"nearest"`` for everything else.
        lenses : sequence of LensResult
            Results of lenses, which are written as well.
        pca : bool
            Whether the figures, pictures and arrays of the main job are written. Prism and report are always written.
        background, basis
            Background and colours of the pictures of photos, as in :meth:`picture`. The figure ``results`` has the
            same background. The figures show both bases.
        masks : sequence of {"png", "coco"}
            Also write the foreground at each photo's resolution. ``upsample`` determines the edges. ``"png"`` writes
            ``<stem>.mask.png`` (255 is foreground), and ``"coco"`` writes ``masks.coco.json`` for all photos.
        instances : bool
            Divide the foreground into objects, and write ``instances.csv`` with their boxes, areas, mean colours and
            scores. ``masks.coco.json`` then has one annotation per object. See :mod:`patchprism.pictures.instances`.
        outline : bool
            Draw a line around the foreground on the photos of the figures.
        figure_format : {"png", "jpg", "pdf", "svg"}, optional
            Format of the figures, by default that of the pictures. In ``"pdf"`` and ``"svg"``, text can be selected.
        dpi : int, optional
            Pixels per inch of the figures: by default 144, or 300 with ``width``.
        width : float or str, optional
            Width of the figures in inches, or a text like ``"3.25in"`` or ``"82mm"``; by default they are as wide as
            their photos need.
        columns : int, optional
            Number of photos in one row of a figure. By default it depends on their number and shapes.
        labels : "none", "names" or sequence of str
            No labels, the names of the photos, or one text per photo.
        arrange : {"beside", "above"}
            Place each photo beside its colours or above them.
        panels : {"whole", "square"}
            Show whole photos, in rows of equal height, or the square in the middle of each.

        Returns
        -------
        list of Path, or of str for an address
            Files that were written: the figures, the files of each photo, the prism, the report.

        Raises
        ------
        OptionError
            If an option has a value that is not allowed; nothing is written then.
        OutputError
            If a file cannot be written, or would replace one that PatchPrism did not write.
        """
        out = checks.path("out", out)
        check_folder(out)
        options = PictureOptions(
            overlay_alpha=overlay_alpha,
            arrays=arrays,
            format=format,
            upsample=upsample,
            background=background,
            basis=basis,
            pca=pca,
            masks=checks.texts("masks", masks),
            instances=instances,
            outline=outline,
            figure_format=figure_format,
            dpi=dpi,
            width=width,
            columns=columns,
            labels=checks.texts("labels", labels),
            arrange=arrange,
            panels=panels,
        )
        names, _ = self.write(out, options, _lens_results(lenses))
        return paths_of(Output(out), names)

    def write(
        self, out: str | os.PathLike[str], options: PictureOptions, lenses: Sequence[LensResult] = ()
    ) -> tuple[list[str], Outcome]:
        """Write the files of :meth:`save`; returns their names and the outcome of the job."""
        with open_engine() as engine:
            run = Run(engine=engine, watch=Stopwatch(self.seconds))
            job = Pictures(
                self._colored(), Output(out, prism=self.prism.loaded_from), options, run, lenses=lenses
            )
            names = job.write()
        self.failures = job.failures()
        return names, job.outcome()

    def _colored(self) -> Colored:
        """The view in the form that pictures and reports are made from."""
        plain = set(self.plain)
        rows = [
            PhotoRow(name, grid, size, crop, name in plain)
            for name, grid, size, crop in zip(
                self.names, self.features.grids, self.sizes, self.crops, strict=True
            )
        ]
        opened = Opened(
            source=MemorySource(self.photos, rows, list(self.features)),
            origin=self.origin,
            failures=self.failures,
            framing=self.framing,
            record=self.record,
            weights=self.weights,
            settings=self.settings,
            notes=self.all_notes(),
        )
        return Colored(opened=opened, prism=self.prism, fitted_here=self.fitted_here, parts=self.parts)

    def recolored(self, prism: Prism, *, fit: bool) -> View:
        """The same photos in the colours of another prism, which can be fitted to them first."""
        again = replace(self, prism=prism, fitted_here=fit or self.fitted_here)
        if fit:
            prism.head, prism.masks = self.prism.head, self.prism.masks
            if prism.head is not None and not is_taught_on(prism.head, self.origin):
                prism.head, prism.masks = None, {}  # the page switched to another model
                prism.foreground = "auto" if prism.foreground == "mask" else prism.foreground
            with open_engine() as engine:
                fit_prism(prism, again._colored().opened, Run(engine=engine))
        pairs = zip(again.names, again.features, strict=True)
        again.parts = [prism.split(tokens, name=name) for name, tokens in pairs]
        return again

    def all_notes(self) -> list[Note]:
        """Notes about the job, with an empty name, then the notes about its photos in their order."""
        return all_notes(self.notes, self.photos)

    def hints(self) -> list[str]:
        """Hints about what to know before you rely on the pictures, in whole sentences."""
        colored = self._colored()
        return colored.hints(self._entries(colored))

    def doubts(self) -> list[dict[str, float]]:
        """Numbers that show how far to trust the foreground of each photo, one dict per photo.

        ``border_ratio``, ``contrast`` and ``likeness`` are those of :meth:`Prism.doubts <patchprism.Prism.doubts>`.
        Photos that were labelled in the fit of this view also have ``agreement``, the intersection over union of
        their foreground with their own labels. If the prism came from elsewhere, the first 64 photos
        are labelled for this.
        """
        agreements, checked = self._colored().agreements()
        found = []
        for i, (tokens, mask) in enumerate(zip(self.features, self.foreground, strict=True)):
            said = self.prism.doubts(tokens, mask, labelled=i < checked)
            found.append(said | {"agreement": round(agreements[i], 4)} if i in agreements else said)
        return found

    def _entries(self, colored: Colored) -> list[dict[str, Any]]:
        """The photos' entries of the report."""
        known = zip(rows_of(colored.opened.source), self.parts, self.doubts(), strict=True)
        return [
            photo_entry(row, part, doubts, gone=i in self.photos.lost, masked=row.name in self.prism.masks)
            for i, (row, part, doubts) in enumerate(known)
        ]

    def report(self) -> dict[str, Any]:
        """The contents of ``report.json``, without the list of files, as JSON values."""
        colored = self._colored()
        entries = self._entries(colored)
        return {
            **report_head(colored, self.seconds),
            "files": {},
            "photos": list(with_notes(entries, colored.opened)),
            **report_tail(colored.opened, colored.hints(entries), self.failures, {}),
        }


def all_notes(of_job: Sequence[str], photos: Photos) -> list[Note]:
    """Notes of a job, with an empty name, then those of its photos in their order."""
    of_photos = [Note(photos.names[i], text) for i in sorted(photos.notes) for text in photos.notes[i]]
    return [*(Note("", text) for text in of_job), *of_photos]


def lost_since(photos: Photos, failures: Sequence[Failure]) -> list[Failure]:
    """Failures of photos that could not be read again, without those that are already in ``failures``."""
    told = {failure.photo for failure in failures}
    lost = [Failure(photos.names[index], reason) for index, reason in sorted(photos.lost.items())]
    return [failure for failure in lost if failure.photo not in told]


def _lens_results(lenses: Any) -> Sequence[LensResult]:
    """The results of lenses, checked."""
    from patchprism.pictures.outputs import LensResult

    found = lenses if isinstance(lenses, (list, tuple)) else [lenses]
    for each in found:
        if not isinstance(each, LensResult):
            checks.refuse("lenses", "what look_through found", lenses)
    return found
