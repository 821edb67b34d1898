"""Visualization: what came of some photos, to look at, to work on, and to save."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.jobs.view import View
from patchprism.pictures.captions import caption, families_for
from patchprism.support import checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from patchprism.explorer import ExplorerPage


class Visualization(View):
    """A view as :func:`patchprism.visualize` returns it, with what notebooks show."""

    @classmethod
    def of(cls, view: View) -> Visualization:
        """The same view, with the methods of this class."""
        return cls(**vars(view))

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
