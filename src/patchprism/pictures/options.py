"""Options of the files for each photo and for all photos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from patchprism.errors import ExtraError, OptionError
from patchprism.pictures.figure_options import FigureOptions
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import OUTPUT, option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

FORMATS = ("png", "jpg")
BACKGROUNDS = ("black", "grey", "white", "photo", "transparent")
BASES = ("object", "all")
FIGURES = ("fg_mask", "results", "results_raw", "histogram")
CAPTIONS = "results.txt"
UPSAMPLES = ("nearest", "bilinear", "guided")
MASKS = ("png", "coco")
COCO_FILE = "masks.coco.json"
INSTANCES_FILE = "instances.csv"


def _chosen_masks(name: str, value: object) -> tuple[str, ...]:
    """Formats of masks, as a sequence or separated by commas."""
    words = [word.strip() for text in checks.texts(name, value or ()) for word in text.split(",")]
    chosen = [checks.choice(name, word, allowed=MASKS) for word in words]
    return tuple(each for each in MASKS if each in chosen)


@dataclass(frozen=True, kw_only=True)
class PictureOptions(FigureOptions):
    """Files for each photo and for all photos: the options of :meth:`Visualization.save` with the same names."""

    overlay_alpha: float | None = option(
        None,
        check=optional(partial(checks.number, low=0, high=1)),
        flag="--overlay",
        metavar="ALPHA",
        help="Also write each photo with its colours on top, at this opacity from 0 to 1.",
        panel=OUTPUT,
    )
    arrays: bool = option(
        False,
        check=checks.flag,
        help="Also write the arrays of each photo as .npz: score, foreground, rgb and rgb_all.",
        panel=OUTPUT,
    )
    format: str = option(
        "png",
        check=partial(checks.choice, allowed=FORMATS),
        metavar="png|jpg",
        help="File format of the pictures.",
        panel=OUTPUT,
    )
    upsample: str = option(
        "auto",
        check=partial(checks.choice, allowed=("auto", *UPSAMPLES)),
        metavar="auto|nearest|bilinear|guided",
        help="How patches become pixels in pictures, masks and figures; guided follows the edges in "
        "the photo. auto is guided for masks and overlays, and nearest for everything else.",
        panel=OUTPUT,
    )
    background: str = option(
        "black",
        check=partial(checks.choice, allowed=BACKGROUNDS),
        metavar="black|grey|white|photo|transparent",
        help="What pictures and the results figure show outside the foreground.",
        panel=OUTPUT,
    )
    basis: str = option(
        "object",
        check=partial(checks.choice, allowed=BASES),
        metavar="object|all",
        help="Which colours to show: those fitted to the foreground (object), or those fitted to all "
        "patches (all).",
        panel=OUTPUT,
    )
    pca: bool = option(True, check=checks.flag)
    masks: tuple[str, ...] = option(
        (),
        check=_chosen_masks,
        metavar="png[,coco]",
        help="Also write foreground masks at the photos' resolution. With png, there is one file per "
        "photo; with coco, one COCO JSON file.",
        panel=OUTPUT,
    )
    instances: bool = option(
        False,
        check=checks.flag,
        help="Split the foreground into objects: write instances.csv, and one annotation per object "
        "with --masks coco.",
        panel=OUTPUT,
    )
    outline: bool = option(
        False,
        check=checks.flag,
        help="Draw a line around the foreground on the photos in the figures.",
        panel=OUTPUT,
    )

    def __post_init__(self) -> None:
        """Refuse combinations that are not allowed, and COCO masks without pycocotools."""
        super().__post_init__()
        if self.background == "transparent" and "jpg" in (self.format, self.figures_as):
            raise OptionError(
                "background cannot be transparent in jpg files; use png",
                option="background",
            )
        if "coco" in self.masks:
            coco_tools()

    @property
    def figures_as(self) -> str:
        """Format of the figures."""
        return self.figure_format or self.format

    @property
    def has_masks(self) -> bool:
        """Whether any file needs masks."""
        return bool(self.masks) or self.instances

    @property
    def needs_photo(self) -> bool:
        """Whether a photo is read again to draw its files."""
        guided = self.has_masks and self.mask_upsample == "guided"
        return guided or (self.pca and needs_photo(self.overlay_alpha, self.upsample, self.background))

    @property
    def mask_upsample(self) -> str:
        """Method from patches to pixels for masks."""
        return "guided" if self.upsample == "auto" else self.upsample

    def mask_files(self) -> list[str]:
        """Names of the files of all photos' masks."""
        return [
            *([COCO_FILE] if "coco" in self.masks else []),
            *([INSTANCES_FILE] if self.instances else []),
        ]

    def figure_files(self) -> list[str]:
        """Names of the figures of all photos, and of the file with their captions."""
        return [*(f"{name}.{self.figures_as}" for name in FIGURES), CAPTIONS] if self.pca else []

    def photo_files(self, stem: str) -> list[str]:
        """Names of the files that may be written for a photo with this stem."""
        mask = [f"{stem}.mask.png"] if "png" in self.masks else []
        if not self.pca:
            return mask
        overlay = [f"{stem}.overlay.{self.format}"] if self.overlay_alpha is not None else []
        return [f"{stem}.pca.{self.format}", *overlay, *([f"{stem}.npz"] if self.arrays else []), *mask]

    def names(self, stems: Sequence[str]) -> Iterator[str]:
        """Names of the files of a job for photos with these stems, without those of lenses."""
        yield from ("prism.safetensors", "report.json", *self.figure_files(), *self.mask_files())
        for stem in stems:
            yield from self.photo_files(stem)


def needs_photo(overlay_alpha: float | None, upsample: str, background: str) -> bool:
    """Whether drawing a picture with these options needs the photo itself."""
    return overlay_alpha is not None or background == "photo" or upsample == "guided"


def coco_tools() -> ModuleType:
    """The module of pycocotools that encodes masks.

    Raises
    ------
    ExtraError
        If it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ExtraError.of(error, "masks", "reading or writing masks as COCO JSON", "pycocotools") from error
    found: ModuleType = mask
    return found
