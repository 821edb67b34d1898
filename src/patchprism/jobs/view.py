"""A view: what came of some photos, ready to draw and to save."""

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
    n_stored : int or None
        How many photos there are in the store that these, or some of them, are of.
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
    n_stored: int | None = None
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
        upsample: str = "auto",
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
        upsample : {"auto", "nearest", "bilinear", "guided"}
            From patches to pixels; see :mod:`patchprism.pictures.upsample`. ``"auto"`` is ``"guided"`` where the photo
            shows (an overlay, or ``background="photo"``), and otherwise ``"nearest"``.
        background : {"black", "grey", "white", "photo", "transparent"}
            What shows where there is no colour; ``overlay_alpha`` goes before it. With ``"transparent"`` the picture
            has a fourth channel, opacity.
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
        """What draws each figure, by the name of its file; called, each gives an array, (H, W, 3) uint8.

        Parameters
        ----------
        options : PictureOptions, optional
            ``outline``, ``background`` and those of figures count.
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
            A folder, made if it is missing, or an address that fsspec opens. Files that an earlier job wrote there
            are replaced, each whole or not at all; files of the user's are never replaced, nor is the prism that was
            loaded.
        overlay_alpha : float in [0, 1], optional
            Also write ``<stem>.overlay.<format>``, the photo under its colours.
        arrays : bool
            Also write ``<stem>.npz`` with ``score``, ``foreground``, ``rgb`` and ``rgb_all``.
        format : {"png", "jpg"}
        upsample : {"auto", "nearest", "bilinear", "guided"}
            From patches to pixels in the pictures of photos, in masks and in the figures. ``"auto"`` is
            ``"guided"`` for masks and overlays, and ``"nearest"`` for the rest.
        lenses : sequence of LensResult
            What :func:`patchprism.lenses.look_through` found: written too.
        pca : bool
            Whether the figures, pictures and arrays of the main job are written; prism and report always are.
        background, basis
            What a photo's pictures show; as in :meth:`picture`. The figure ``results`` has the same background, and
            the figures show both bases.
        masks : sequence of {"png", "coco"}
            Also write the foreground at each photo's resolution, with edges as ``upsample`` makes them: ``"png"``
            writes ``<stem>.mask.png`` (255 is foreground), ``"coco"`` writes ``masks.coco.json`` for all photos.
        instances : bool
            Part the foreground into objects, one annotation each in ``masks.coco.json``, and write ``instances.csv``
            with their boxes, areas, mean colours and scores; see :mod:`patchprism.pictures.instances`.
        outline : bool
            Draw a line around the foreground on the photos of the figures.
        figure_format : {"png", "jpg", "pdf", "svg"}, optional
            Format of the figures, by default that of the pictures. Text in ``"pdf"`` and ``"svg"`` stays text.
        dpi : int, optional
            Pixels per inch of the figures: by default 144, which is two per point, or 300 with ``width``.
        width : float or str, optional
            Width of the figures in inches, or a text like ``"3.25in"`` or ``"82mm"``; by default they are as wide as
            their photos need.
        columns : int, optional
            Photos in one row of a figure; by default chosen by their number and shapes.
        labels : "none", "names" or sequence of str
            No labels, the photos' names, or one text per photo.
        arrange : {"beside", "above"}
            Where a photo stands in figures: beside its colours, or above them.
        panels : {"whole", "square"}
            Photos whole, in rows of equal height, or the square in their middle.

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
        """Write what :meth:`save` does; the names of the files, and what came of the job."""
        with open_engine() as engine:
            run = Run(engine=engine, watch=Stopwatch(self.seconds))
            job = Pictures(
                self._colored(), Output(out, prism=self.prism.loaded_from), options, run, lenses=lenses
            )
            names = job.write()
        self.failures = job.failures()
        return names, job.outcome()

    def _colored(self) -> Colored:
        """The view as what pictures and reports are made of."""
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
        """The same photos in the colours of another prism, which is fitted to them first if that is asked for."""
        again = replace(self, prism=prism, fitted_here=fit or self.fitted_here)
        if fit:
            prism.head, prism.masks = self.prism.head, self.prism.masks
            if prism.head is not None and not is_taught_on(prism.head, self.origin):
                prism.head, prism.masks = None, {}  # the page took another model
                prism.foreground = "auto" if prism.foreground == "mask" else prism.foreground
            with open_engine() as engine:
                fit_prism(prism, again._colored().opened, Run(engine=engine))
        pairs = zip(again.names, again.features, strict=True)
        again.parts = [prism.split(tokens, name=name) for name, tokens in pairs]
        return again

    def all_notes(self) -> list[Note]:
        """Notes of the job, with an empty name, then those of its photos in their order."""
        return all_notes(self.notes, self.photos)

    def hints(self) -> list[str]:
        """What a person should know before believing the pictures, in whole sentences."""
        colored = self._colored()
        return colored.hints(self._entries(colored))

    def doubts(self) -> list[dict[str, float]]:
        """What tells whether each photo's foreground can be believed, one dict per photo.

        ``border_ratio``, ``contrast`` and ``likeness`` are as :meth:`Prism.doubts <patchprism.Prism.doubts>`
        has them; ``agreement``, of photos that were labelled for this view's fit, is the intersection over union
        of their foreground with their own labels.
        """
        agreements = self.prism.agreements if self.fitted_here else {}
        found = []
        for i, (tokens, mask) in enumerate(zip(self.features, self.foreground, strict=True)):
            said = self.prism.doubts(tokens, mask)
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
        """All there is to say about the view, as JSON values: what ``report.json`` holds, but for files."""
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
    """Photos that were read, but could not be read again, as failures that are not among those yet."""
    told = {failure.photo for failure in failures}
    lost = [Failure(photos.names[index], reason) for index, reason in sorted(photos.lost.items())]
    return [failure for failure in lost if failure.photo not in told]


def _lens_results(lenses: Any) -> Sequence[LensResult]:
    """What lenses found, if it is that."""
    from patchprism.pictures.outputs import LensResult

    found = lenses if isinstance(lenses, (list, tuple)) else [lenses]
    for each in found:
        if not isinstance(each, LensResult):
            checks.refuse("lenses", "what look_through found", lenses)
    return found
