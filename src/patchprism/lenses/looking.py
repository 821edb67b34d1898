"""Lenses as a part of a job: what `patchprism render --lens` runs beside the main pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from patchprism.errors import OptionError
from patchprism.jobs.fitting import walk_over
from patchprism.lenses import fit_lenses
from patchprism.lenses.attention import check_backbone
from patchprism.lenses.points import find_photo, parse_point
from patchprism.lenses.scene import Scene
from patchprism.lenses.write import file_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from patchprism.backbones import Backbone
    from patchprism.jobs.report import Colored
    from patchprism.jobs.run import Run
    from patchprism.lenses.base import Lens
    from patchprism.lenses.options import LensOptions
    from patchprism.pictures.picture import PictureOptions


@dataclass
class Lenses:
    """The lenses that a job is asked for; see :class:`~patchprism.jobs.lens.Looking`.

    Attributes
    ----------
    names : sequence of str
        From ``LENSES``, checked.
    options : LensOptions
    """

    names: Sequence[str]
    options: LensOptions
    scene: Scene | None = field(default=None, init=False)

    @property
    def needs_backbone(self) -> bool:
        """Whether one of them runs the network once more."""
        return "attention" in self.names

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a network that cannot give its attention, before any photo is read."""
        check_backbone(backbone, has_points=bool(self.options.at), layer=self.options.layer)

    def files(self, stems: Sequence[str], photos: Sequence[str], pictures: PictureOptions) -> Iterator[str]:
        """Names of the files that may be written.

        Raises
        ------
        OptionError
            If a point lies in no photo, or there are too few photos.
        """
        if "matches" in self.names and len(photos) < 2:
            raise OptionError(f"the lens matches needs at least two photos, got {len(photos)}")
        for text in self.options.at:
            find_photo(parse_point(text)[0], photos)
        return file_names(
            self.names, self.options, stems, photos, arrays=pictures.arrays, format=pictures.format
        )

    def fit(self, colored: Colored, run: Run) -> list[Lens]:
        """The lenses, fitted to the photos of a job."""
        opened, options = colored.opened, self.options
        if isinstance(layer := opened.settings.get("layer"), int):
            options = replace(options, layer=layer)  # a prism may bring the layer that it was fitted on
        self.scene = Scene(
            source=opened.source,
            prism=colored.prism,
            framing=opened.framing,
            record=opened.record,
            options=options,
            load=opened.load,
            parts=colored.parts,
        )
        return fit_lenses(self.names, self.scene, walk_over(opened.source, run.engine, tell=run.tell))

    def lost(self) -> Iterable[tuple[str, str]]:
        """Photos that could not be read again, and why; they are forgotten afterwards."""
        if self.scene is None:
            return []
        found = list(self.scene.lost.items())
        self.scene.lost.clear()
        return found
