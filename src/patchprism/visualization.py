"""Visualization: what came of some photos, to look at, to work on, and to save."""

from __future__ import annotations

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism import checks
from patchprism.captions import caption, families_for
from patchprism.errors import OutputError
from patchprism.files import atomic_write, refuse_to_replace
from patchprism.paths import unique_stems
from patchprism.picture import FORMATS, PictureOptions, draw_picture
from patchprism.render import (
    fg_mask_figure,
    results_figure,
    score_histogram,
    write_picture,
)
from patchprism.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from patchprism.backbones import BackboneRecord, WeightsOrigin
    from patchprism.explorer import ExplorerPage
    from patchprism.extract import Photos
    from patchprism.features import PatchFeatures
    from patchprism.framing import Framing
    from patchprism.lenses import LensResult
    from patchprism.prism import PhotoColors, Prism

REPORT_VERSION = 1
FIGURES = ("fg_mask", "results", "results_raw", "histogram")
# What stands between a photo's stem and the format in the name of its pictures
PICTURES = ("pca", "overlay")
# A photo whose foreground is smaller than this share, or its background, is suspicious.
EXTREME_SHARE = 0.05
WRITERS = 2  # encoding frees the interpreter lock; more threads would only hold more photos in memory


@dataclass(frozen=True)
class Failure:
    """A photo that could not be done, and why."""

    photo: str
    reason: str


@dataclass(kw_only=True)
class Visualization:
    """The colours of some photos, and all that led to them.

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

    @property
    def names(self) -> list[str]:
        """The photos, as they were named."""
        return self.photos.names

    @property
    def gone(self) -> list[str]:
        """Photos of a store that are not there any more, or not to be asked for; shown as plain grey.

        Photos are read when they are first shown. Those that were not yet are read for this.
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
            From patches to pixels; see :mod:`patchprism.upsample`.
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

    def figure(self) -> Figure:
        """Photo, score, colours and all-patch picture of every photo, a row each, as a Matplotlib figure."""
        from matplotlib import rcParams
        from matplotlib.figure import Figure
        from matplotlib.font_manager import FontProperties, findfont

        rows = len(self)
        figure = Figure(figsize=(10, 2.6 * rows), layout="constrained")
        axes = figure.subplots(rows, 4, squeeze=False)
        for i, (row, part) in enumerate(zip(axes, self.parts, strict=True)):
            row[0].imshow(self.photos.shown(i, self.framing))
            row[1].imshow(part.score, vmin=0, vmax=1, cmap="viridis")
            if part.foreground.any() and not part.foreground.all():
                row[1].contour(part.foreground, levels=[0.5], colors="white", linewidths=1)
            row[2].imshow(part.rgb)
            row[3].imshow(part.rgb_all)
            # A name is no formula.
            name = caption(Path(self.names[i]).name, i + 1)
            fonts = [*rcParams["font.family"], *families_for(name, findfont(FontProperties()))]
            row[0].set_ylabel(name, parse_math=False, usetex=False, fontfamily=fonts)
            for axis in row:
                axis.set(xticks=[], yticks=[])
        for axis, title in zip(
            axes[0], ("photo", "score, foreground", "colours", "all patches"), strict=True
        ):
            axis.set_title(title)
        return figure

    def explore(self, *, title: str | None = None) -> ExplorerPage:
        """The page to explore these photos with; a notebook shows it in place.

        Parameters
        ----------
        title : str, optional

        Returns
        -------
        ExplorerPage
            ``.save(path)`` writes it as one HTML file that needs neither a server nor a network.
        """
        from patchprism.explorer import ExplorerPage, build_message

        title = None if title is None else checks.text("title", title)
        return ExplorerPage(build_message(self, title=title))

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the figure ``results``."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.figures()["results"]()).save(buffer, "PNG")
        return buffer.getvalue()

    def __repr__(self) -> str:
        prism = self.prism
        kept = sum(int(mask.sum()) for mask in self.foreground)
        split = "all patches" if prism.side_ == "none" else f"score {prism.side_} {prism.threshold_:.3g}"
        return (
            f"Visualization({counted(len(self), 'photo')}, {self.record.name}, {split}, "
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
    ) -> list[Path]:
        """Write figures, pictures, the prism and the report into a folder.

        Parameters
        ----------
        out : path
            Made if it is missing. Files of the same names are replaced, each whole or not at all.
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
        list of Path
            What was written: figures first, then each photo's files, the prism, the report.

        Raises
        ------
        OptionError
            If an option has a value that is not allowed; nothing is written then.
        OutputError
            If a file cannot be written.
        """
        folder = Path(checks.path("out", out))
        chosen = check_output_options(folder, overlay_alpha, format, upsample, background, basis, arrays)
        overlay_alpha, arrays, format = chosen.overlay_alpha, chosen.arrays, chosen.format
        upsample, background, basis = chosen.upsample, chosen.background, chosen.basis
        pca, lenses = checks.flag("pca", pca), _lens_results(lenses)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(str(folder), error.strerror or "cannot make this folder") from error
        start = perf_counter()
        stems = unique_stems([Path(name).name for name in self.names])
        jobs: list[tuple[Path, Callable[[Path], None]]] = [
            (folder / f"{name}.{format}", partial(_write_drawn, draw))
            for name, draw in (self.figures().items() if pca else ())
        ]
        if lenses:
            from patchprism.lenses.write import figure_jobs, photo_jobs

            jobs += figure_jobs(lenses, folder, arrays=arrays, format=format)
        of_photo: list[list[str]] = []
        for i, stem in enumerate(stems):
            draw = partial(self.picture, i, upsample=upsample, basis=basis)
            made = (
                self._photo_jobs(i, folder / stem, draw, overlay_alpha, arrays, format, background)
                if pca
                else []
            )
            if lenses:
                made += photo_jobs(lenses, i, folder / stem, arrays=arrays, format=format)
            of_photo.append([path.name for path, _ in made])
            jobs += made
        _check_distinct([path for path, _ in jobs])
        read = [source for source in self.photos.sources if isinstance(source, (str, os.PathLike))]
        refuse_to_replace(folder, [path.name for path, _ in jobs], read)
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="patchprism-write") as pool:
            for future in [pool.submit(write, path) for path, write in jobs]:
                future.result()
        prism, report = folder / "prism.safetensors", folder / "report.json"
        self.prism.save(prism)
        self.seconds["write"] = perf_counter() - start
        with atomic_write(report) as part:
            text = json.dumps(self.report(of_photo, lenses), indent=2, ensure_ascii=False)
            part.write_text(text + "\n", "utf-8", errors="replace")  # a file's name may be no text
        return [path for path, _ in jobs] + [prism, report]

    def _photo_jobs(
        self,
        index: int,
        stem: Path,
        draw: Callable[..., NDArray[np.uint8]],
        overlay_alpha: float | None,
        arrays: bool,
        format: str,
        background: str,
    ) -> list[tuple[Path, Callable[[Path], None]]]:
        def named(suffix: str) -> Path:
            return stem.with_name(f"{stem.name}.{suffix}")

        jobs: list[tuple[Path, Callable[[Path], None]]] = [
            (named(f"pca.{format}"), partial(_write_drawn, partial(draw, background=background)))
        ]
        if overlay_alpha is not None:
            over = partial(draw, overlay_alpha=overlay_alpha)
            jobs.append((named(f"overlay.{format}"), partial(_write_drawn, over)))
        if arrays:
            jobs.append((named("npz"), partial(write_arrays, self.parts[index])))
        return jobs

    def hints(self) -> list[str]:
        """What a person should know before believing the pictures, in whole sentences."""
        shares = np.array([mask.mean() for mask in self.foreground])
        return hints_about(shares, self.prism.side_)

    def report(
        self, files: Sequence[Sequence[str]] | None = None, lenses: Sequence[LensResult] = ()
    ) -> dict[str, Any]:
        """All there is to say about the job, as JSON values: what ``report.json`` holds.

        Parameters
        ----------
        files : sequence of sequence of str, optional
            Names of the files written for each photo.
        lenses : sequence of LensResult
            Whose reports are put in under ``lenses``.
        """
        from patchprism import __version__

        record = self.record
        photos = [
            {
                "photo": name,
                "size": list(size),
                "grid": list(part.score.shape),
                "crop": [round(edge, 3) for edge in crop],
                "foreground": round(float(part.foreground.mean()), 6),
                **({"files": list(files[i])} if files else {}),
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
                "weights": {
                    "source": self.weights.source,
                    "file": self.weights.path,
                    "sha256": self.weights.sha256,
                },
            },
            "settings": self.settings,
            "framing": self.framing.to_dict(),
            "prism": {"fitted_here": self.fitted_here, **self.prism.summary()},
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "photos": photos,
            **({"lenses": {lens.name: lens.report for lens in lenses}} if lenses else {}),
            "hints": self.hints(),
            "failures": [{"photo": failure.photo, "reason": failure.reason} for failure in self.failures],
        }


def hints_about(shares: NDArray[np.floating[Any]], side: str) -> list[str]:
    """What the photos' shares of foreground, (n,), say of the colours' worth."""
    extreme = int(np.count_nonzero((shares < EXTREME_SHARE) | (shares > 1 - EXTREME_SHARE)))
    if side == "none" or len(shares) < 2 or 2 * extreme < len(shares):
        return []
    return [
        f"in {extreme} of {len(shares)} photos nearly all patches are foreground, or nearly none: the first "
        "component tells photos apart, not objects from their ground; colour photos of one subject "
        "together and others alone, or keep all patches with --foreground none"
    ]


def check_output_options(
    out: Path | None,
    overlay_alpha: float | None,
    format: str,
    upsample: str = "nearest",
    background: str = "black",
    basis: str = "object",
    arrays: bool = False,
) -> PictureOptions:
    """Refuse options of :meth:`Visualization.save` that are not allowed, before anything is computed."""
    try:
        if out is not None and out.exists() and not out.is_dir():
            raise OutputError(str(out), "it is a file, not a folder")
    except (OSError, ValueError) as error:  # a name that is too long; one with a NUL
        raise OutputError(str(out), str(getattr(error, "strerror", None) or error).lower()) from error
    return PictureOptions(
        overlay_alpha=overlay_alpha,
        arrays=arrays,
        format=format,
        upsample=upsample,
        background=background,
        basis=basis,
    )


def _lens_results(lenses: Any) -> Sequence[LensResult]:
    """What lenses found, if it is that."""
    from patchprism.lenses.base import LensResult

    found = lenses if isinstance(lenses, (list, tuple)) else [lenses]
    for each in found:
        if not isinstance(each, LensResult):
            checks.refuse("lenses", "what look_through found", lenses)
    return found


def _check_distinct(paths: Sequence[Path]) -> None:
    """Stems are unique, yet one may look like another's with a suffix (``a`` and ``a.norm``)."""
    seen: set[str] = set()
    for path in paths:
        key = path.name.casefold()
        if key in seen:
            raise OutputError(str(path), "two files of this job would have this name; rename a photo")
        seen.add(key)


def is_output(path: Path, folder: Path) -> bool:
    """Whether a file is a picture that :meth:`Visualization.save` wrote into a folder."""
    parts = path.name.rsplit(".", 2)
    if path.parent != folder or parts[-1] not in FORMATS:
        return False
    return parts[1] in PICTURES if len(parts) == 3 else parts[0] in FIGURES


def _write_drawn(draw: Callable[[], NDArray[np.uint8]], path: Path) -> None:
    write_picture(path, draw())


def write_arrays(part: PhotoColors, path: Path) -> None:
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary, score=part.score, foreground=part.foreground, rgb=part.rgb, rgb_all=part.rgb_all
        )
