"""Photos and their true masks -> how well the foreground agrees with them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import MaskError, PatchPrismError, PhotoError
from patchprism.features.extraction import photo_names
from patchprism.features.store import StoredFeatures
from patchprism.jobs.coloring import NEW
from patchprism.jobs.given import FolderMasks
from patchprism.jobs.inputs import listed_input
from patchprism.jobs.mask_files import masks_in, read_mask
from patchprism.jobs.masks import Masks
from patchprism.jobs.opened import resolved_for
from patchprism.jobs.render import color
from patchprism.jobs.source import Failure
from patchprism.pictures.measures import PhotoMeasures, measure, overall
from patchprism.pictures.options import PictureOptions
from patchprism.prism.labels import check_shape
from patchprism.support.files import atomic_write, check_target
from patchprism.support.folders import LocalFolder
from patchprism.support.reading import Note
from patchprism.support.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from patchprism.jobs.coloring import Coloring
    from patchprism.jobs.report import Colored
    from patchprism.jobs.run import Run
    from patchprism.jobs.settings import Settings

# Up to this many photos, the tokens are kept in memory.
IN_MEMORY = 64
MEASURES = ("iou", "max_f", "mae", "max_e", "s", "corloc")


@dataclass(kw_only=True)
class Evaluation:
    """How well the foreground of photos agrees with true masks.

    Attributes
    ----------
    photos : list of dict
        For each photo with a mask: ``photo``, ``mask`` and the measures.
    overall : dict
        The measures over all of them.
    settings : dict
        Every option, as it was used.
    model : str
    failures : list of Failure
        Photos that could not be read, and photos without a usable mask.
    notes : list of Note
    """

    photos: list[dict[str, Any]]
    overall: dict[str, float]
    settings: dict[str, Any]
    model: str
    failures: list[Failure] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "patchprism": __version__,
            "model": self.model,
            "settings": self.settings,
            "overall": self.overall,
            "photos": self.photos,
            "failures": [{"photo": each.photo, "reason": each.reason} for each in self.failures],
            "notes": [{"photo": each.name, "text": each.text} for each in self.notes],
        }


def evaluate_photos(
    photos: Sequence[str | os.PathLike[str]],
    masks: str | os.PathLike[str],
    *,
    settings: Settings,
    run: Run,
    coloring: Coloring = NEW,
    upsample: str = "auto",
    out: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Photos or a store, and a folder of masks -> measures.

    Parameters
    ----------
    photos : sequence of path
        As for :func:`~patchprism.jobs.render.render_photos`.
    masks : path
        Folder of PNG files with the photos' stems; pixels of at least half a file's largest value are object. A mask
        may have another size than its photo, but not another shape.
    settings : Settings
    run : Run
    coloring : Coloring
    upsample : {"auto", "nearest", "bilinear", "guided"}
        How the foreground is upsampled from patches to pixels; ``"auto"`` is ``"guided"``.
    out : path, optional
        A JSON file to write.

    Raises
    ------
    PatchPrismError
        One of its subclasses; also if no photo has a mask, or two photos have the same mask.
    """
    folder = Path(masks)
    truths = FolderMasks(folder, masks_in(folder))
    options = PictureOptions(upsample=upsample, pca=False, masks=("png",))
    given, said = listed_input(photos)
    # Photos that share a mask are refused before the network runs.
    truths.match(given.names if isinstance(given, StoredFeatures) else photo_names(given))
    if out is not None:
        check_target(
            out, given if isinstance(given, list) else (), read=[folder, settings.weights], make_folder=True
        )
    settings = resolved_for(settings, given, run, coloring)
    with tempfile.TemporaryDirectory(prefix="patchprism-") as made:
        work = LocalFolder(Path(made), work=Path(made)) if len(given) > IN_MEMORY else None
        colored = color(given, settings, run, coloring, work=work)
        found = _evaluated(colored, truths, options, run)
    found.notes = [*said, *found.notes]
    if out is not None:
        with atomic_write(out) as part:
            part.write_text(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return found


def _evaluated(colored: Colored, truths: FolderMasks, options: PictureOptions, run: Run) -> Evaluation:
    source, prism = colored.opened.source, colored.prism
    drawing = Masks(prism=prism, options=options)
    failures = list(colored.opened.failures)
    rows: list[dict[str, Any]] = []
    measured: list[PhotoMeasures] = []
    notes = list(colored.opened.notes)
    done, total = 0, sum(len(source.rows(shard)) for shard in range(source.n_shards))
    for shard in range(source.n_shards):
        for row, tokens in source.read(shard):
            run.tell("measure", done, total)
            done += 1
            stem = Path(row.name).stem
            path = truths.files.get(stem, truths.folder / f"{stem}.png")
            try:
                truth = read_truth(path, row.size)
            except PhotoError as error:
                failures.append(Failure(row.name, str(error)))
                continue
            part = prism.split(tokens, name=row.name)
            photo, reason = source.photo(row) if options.needs_photo else (None, None)
            gone = options.needs_photo and photo is None
            # By default, the mask of a store's photo that is gone is upsampled bilinearly.
            if gone and (reason or options.upsample != "auto"):
                failures.append(
                    Failure(row.name, reason or "the photo is gone, and guided upsampling needs it")
                )
                continue
            found = measure(drawing.mask(row, part, photo), drawing.score(row, part, photo), truth)
            measured.append(found)
            if gone:
                notes.append(
                    Note(
                        row.name,
                        "the photo is missing or was replaced: its mask was measured with bilinear upsampling",
                    )
                )
            rows.append({"photo": row.name, "mask": str(path), **_rounded(overall([found]))})
    if not measured:
        reason = failures[0].reason if failures else "no photos"
        raise PatchPrismError(f"no photo has a mask that fits it; the first problem: {reason}")
    return Evaluation(
        photos=rows,
        overall=_rounded(overall(measured)),
        settings=colored.opened.settings | {"upsample": options.mask_upsample},
        model=colored.opened.record.name,
        failures=failures,
        notes=notes,
    )


def read_truth(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A true mask at a photo's size, (H, W) bool, as :func:`~patchprism.jobs.mask_files.read_mask` reads it.

    Pixels of at least half the file's largest value are object, which cuts soft edges in the middle.

    Raises
    ------
    PhotoError
        If it is missing, cannot be read, has another shape than the photo, or is empty.
    """
    if not path.is_file():
        raise PhotoError(str(path), "no such mask")
    try:
        truth: NDArray[np.bool_] = read_mask(path) == 1
    except MaskError as error:
        raise PhotoError(str(path), "this mask cannot be read as an image") from error
    check_shape(str(path), truth.shape, size)
    if not truth.any():
        raise PhotoError(str(path), "this mask is empty: none of its pixels are object")
    height, width = truth.shape
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.intp)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.intp)
    resized: NDArray[np.bool_] = truth[rows][:, columns]
    return resized


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
