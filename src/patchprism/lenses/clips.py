"""Lenses over the frames of a clip: what `patchprism video --lens` shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchprism.errors import ModelError, OptionError
from patchprism.jobs.fitting import walk_over
from patchprism.jobs.video.options import parse_time
from patchprism.lenses.attention import check_backbone, top
from patchprism.lenses.looking import lens_class
from patchprism.lenses.options import LensOptions
from patchprism.lenses.points import parse_point, point_in
from patchprism.lenses.scene import Scene
from patchprism.pictures.sheet import heat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.lens import AskedFrames, FrameLens
    from patchprism.jobs.report import Colored
    from patchprism.jobs.run import Run
    from patchprism.lenses.options import ClipLensOptions
    from patchprism.lenses.points import Point

# Number of frames that the scale of attention is fitted on. Each costs a forward pass.
_ATTENDED = 8


def clip_lens(options: ClipLensOptions) -> ClipLens | None:
    """The lens for :func:`~patchprism.jobs.video.job.color_clip`; None for the prism's own colours."""
    return None if options.lens == "pca" else ClipLens(options)


@dataclass(kw_only=True, eq=False, repr=False)
class _ClipScene(Scene):
    """A scene whose points are in frames that are given by their time."""

    frames: AskedFrames
    asked: list[tuple[PhotoRow, Tokens]] = field(default_factory=list)

    def locate(self, text: str) -> Point:
        """The patch at a point, ``TIME:x,y``."""
        time, x, y = parse_point(text)
        self.asked.append(self.frames.at(parse_time("at", time)))
        return point_in(self.asked[-1][0], len(self.asked) - 1, x, y, text=text)

    def tokens(self, number: int) -> tuple[PhotoRow, Tokens]:
        """The frame of a point with its tokens; without points, a frame of the source."""
        return self.asked[number] if self.asked else super().tokens(number)


@dataclass(frozen=True)
class ClipLens:
    """See :class:`~patchprism.jobs.lens.ClipLooking`."""

    options: ClipLensOptions

    @property
    def shows_foreground(self) -> bool:
        """Whether hints about the foreground matter."""
        return self.options.lens == "score"

    def fit(self, colored: Colored, run: Run, frames: AskedFrames) -> FrameLens:
        """The lens, fitted to the frames of a source."""
        opened, options = colored.opened, self.options
        if options.lens == "attention":
            return _fit_attention(frames, opened.settings["layer"])
        scene = _ClipScene(
            source=opened.source,
            prism=colored.prism,
            framing=opened.framing,
            record=opened.record,
            options=LensOptions(at=() if options.at is None else (options.at,), clusters=options.clusters),
            frames=frames,
        )
        return lens_class(options.lens)(scene).fit(walk_over(opened.source, run.engine, tell=run.tell))


def _fit_attention(frames: AskedFrames, layer: Any) -> _ClipAttention:
    if not isinstance(layer, int):
        raise OptionError(f"the lens attention needs a single layer, got layer={','.join(map(str, layer))}")
    # Only the class token's attention is shown: a patch would have to be tracked from frame to frame.
    check_backbone(frames.backbone, has_points=True, layer=layer)
    if not frames.backbone._has_class_token():
        raise ModelError(
            f"{frames.backbone.record.name} has no class token, so a clip cannot be shown through the lens attention"
        )
    lens = _ClipAttention(frames.backbone, layer)
    lens.high = max(top(lens.attended(pixels)) for pixels in frames.pixels(_ATTENDED))
    return lens


@dataclass
class _ClipAttention:
    """Attention of the class token, averaged over heads, on one scale for all frames."""

    backbone: Backbone
    layer: int
    high: float = 0.0

    @property
    def meaning(self) -> str:
        """See :class:`~patchprism.jobs.lens.FrameLens`."""
        return f"attention of the class token, mean over heads, from 0 to {self.high:.2g} per patch"

    def paint(self, tokens: Tokens, score: NDArray[np.floating[Any]], pixels: Any) -> NDArray[np.uint8]:
        """See :class:`~patchprism.jobs.lens.FrameLens`; one colour per patch of the network."""
        return heat(self.attended(pixels), 0.0, self.high)

    def attended(self, pixels: Any) -> NDArray[np.float32]:
        """Weight of each patch, (h, w)."""
        heads = self.backbone.attention(pixels[None], layer=self.layer)[0]
        weights: NDArray[np.float32] = heads.mean(dim=0).cpu().float().numpy()
        return weights
