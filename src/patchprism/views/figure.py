"""A view as a Matplotlib figure. Importing it loads Matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont

from patchprism.pictures.captions import caption, families_for

if TYPE_CHECKING:
    from patchprism.jobs.view import View


class ShownFigure(Figure):
    """A figure that a notebook shows although nothing has imported pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def draw_figure(view: View) -> ShownFigure:
    """Photo, score, colours and all-patch picture of every photo, one row each."""
    rows = len(view)
    figure = ShownFigure(figsize=(10, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False)
    for i, (row, part) in enumerate(zip(axes, view.parts, strict=True)):
        row[0].imshow(view.photos.shown(i, view.framing))
        row[1].imshow(part.score, vmin=0, vmax=1, cmap="viridis")
        if part.foreground.any() and not part.foreground.all():
            row[1].contour(part.foreground, levels=[0.5], colors="white", linewidths=1)
        row[2].imshow(part.rgb)
        row[3].imshow(part.rgb_all)
        # A name is no formula.
        name = caption(Path(view.names[i]).name, i + 1)
        fonts = [*rcParams["font.family"], *families_for(name, findfont(FontProperties()))]
        row[0].set_ylabel(name, parse_math=False, usetex=False, fontfamily=fonts)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    titles = ("photo", "score, foreground", "colours", "all patches")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    return figure
