"""Options that select and transform the tokens of a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import MODEL, Checked, numbers, option
from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    import torch

    from patchprism.backbones import Backbone, BackboneRecord
    from patchprism.support.checks import Check

check_batch_size: Check = optional(partial(checks.integer, low=1, high=checks.MAX_COUNT))

TOKEN_NORMS = ("none", "l2")
REFINES = (1, 2, 4, 8)
# Default side of a window in pixels, for photos that are too large for the memory.
DEFAULT_TILE = 896


def check_refine(name: str, value: object) -> int:
    """One of the factors that a grid can be refined by."""
    found = checks.integer(name, value)
    if found not in REFINES:
        checks.refuse(name, "1, 2, 4 or 8", value)
    return int(found)


@dataclass(frozen=True, kw_only=True)
class TokenOptions(Checked):
    """Which tokens of a backbone are used. The defaults are its patch tokens.

    Attributes
    ----------
    layer : int or tuple of int
        Block, counted from 0, or from the end with negative numbers. The tokens of several blocks come from one
        forward pass and are concatenated.
    facet : str
        ``"token"``, ``"query"``, ``"key"`` or ``"value"``, if the backbone has it.
    final_norm : bool
        Whether the network's final norm is applied to the tokens; see ``Backbone.layer_tokens``.
    token_norm : {"none", "l2"}
        ``"l2"`` scales each token to unit length, so that patches with large norms do not count more. The tokens of
        several layers are scaled separately.
    tile : int, optional
        Side of a window in pixels of model input. Larger photos go through the network window by window, and the
        tokens of overlapping windows are blended; see :mod:`patchprism.features.tiles`.
    refine : {1, 2, 4, 8}
        Factor by which the grid of tokens is made finer, following the edges in the photo; see
        :mod:`patchprism.features.finer`.
    """

    layer: int | tuple[int, ...] = option(
        -1,
        check=checks.layers,
        metavar="N[,N...]",
        help="Block to take the tokens from: 0 is the first, -1 the last. The tokens of several "
        "blocks are concatenated. Default: -1, or 8 for focus_vits14.",
        panel=MODEL,
        parse=numbers("a number or several like 2,5,8,11", int),
    )
    facet: str = option(
        "token",
        check=checks.text,
        metavar="token|query|key|value",
        help="Output of the block to use: its tokens, or the queries, keys or values of its attention.",
        panel=MODEL,
    )
    final_norm: bool = option(
        True,
        check=checks.flag,
        flag="--final-norm/--no-final-norm",
        help="Apply the model's final norm to the tokens (the default), or do not.",
        panel=MODEL,
    )
    token_norm: str = option(
        "none",
        check=partial(checks.choice, allowed=TOKEN_NORMS),
        metavar="none|l2",
        help="Scaling of each token before the PCA; with l2, all tokens have unit length, so that "
        "patches with large norms do not count more.",
        panel=MODEL,
    )

    tile: int | None = option(
        None,
        check=optional(partial(checks.integer, low=32, high=1 << 15)),
        metavar="PIXELS",
        help="Split photos larger than this into overlapping windows of this side length, and blend "
        f"their tokens. Default: no windows, or windows of {DEFAULT_TILE} if memory is too "
        "small.",
        panel=MODEL,
    )
    refine: int = option(
        1,
        check=check_refine,
        metavar="1|2|4|8",
        help="Make the token grid this many times finer, following the edges in the photo.",
        panel=MODEL,
    )

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers as a tuple."""
        return (self.layer,) if isinstance(self.layer, int) else self.layer

    def tokens(self, backbone: Backbone, pixels: torch.Tensor) -> torch.Tensor:
        """The selected tokens of a batch of framed photos: (B, 3, H, W) -> (B, h, w, D) float32."""
        import torch
        from torch.nn.functional import normalize

        with own_settings():
            if isinstance(self.layer, int):
                parts = [
                    backbone.patch_tokens(pixels, layer=self.layer, facet=self.facet, norm=self.final_norm)
                ]
            else:
                parts = backbone.layer_tokens(pixels, self.layer, facet=self.facet, norm=self.final_norm)
            if self.token_norm == "l2":
                parts = [normalize(part, dim=-1) for part in parts]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def origin(self, record: BackboneRecord) -> dict[str, Any]:
        """The options as JSON values. The last layer is always -1, and all others count from 0.

        Raises
        ------
        ModelError
            If the network has no such layer.
        """
        found = [record.layer_index(layer) for layer in self.layers]
        layers = [-1 if layer == record.depth - 1 else layer for layer in found]
        values = {
            "layer": layers[0] if len(layers) == 1 else layers,
            "facet": self.facet,
            "final_norm": self.final_norm or self.facet != "token",
            "token_norm": self.token_norm,
        }
        if self.tile is not None:
            values["tile"] = self.tile
        return values | ({"refine": self.refine} if self.refine > 1 else {})
