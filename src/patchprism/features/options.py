"""Which of a backbone's tokens a job takes."""

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


@dataclass(frozen=True, kw_only=True)
class TokenOptions(Checked):
    """Which of a backbone's tokens are taken. The defaults are its own patch tokens.

    Attributes
    ----------
    layer : int or tuple of int
        Block counted from 0, or from the end with negative numbers. The tokens of several blocks lie side by
        side, of one forward pass.
    facet : str
        ``"token"``, ``"query"``, ``"key"`` or ``"value"``, where the backbone has it.
    final_norm : bool
        Whether the network's final norm is applied to the tokens; see ``Backbone.layer_tokens``.
    token_norm : {"none", "l2"}
        ``"l2"`` gives each token unit length, so that high-norm patches weigh no more than others; with
        several layers, each layer's.
    """

    layer: int | tuple[int, ...] = option(
        -1,
        check=checks.layers,
        metavar="N[,N...]",
        help="Block whose tokens are taken, counted from 0, or from the end: -1 is the last. The tokens of several "
        "blocks are concatenated. focus_vits14 has a default of its own, 8.",
        panel=MODEL,
        parse=numbers("a number or several like 2,5,8,11", int),
    )
    facet: str = option(
        "token",
        check=checks.text,
        metavar="token|query|key|value",
        help="What is taken of the block: its tokens, or a projection of its attention.",
        panel=MODEL,
    )
    final_norm: bool = option(
        True,
        check=checks.flag,
        flag="--final-norm/--no-final-norm",
        was="--no-norm",
        help="Apply the network's final norm to the tokens (the default), or not.",
        panel=MODEL,
    )
    token_norm: str = option(
        "none",
        check=partial(checks.choice, allowed=TOKEN_NORMS),
        was="--norm",
        metavar="none|l2",
        help="l2 gives each token unit length before the PCA, so that patches of high norm weigh no more than others.",
        panel=MODEL,
    )

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, one or several."""
        return (self.layer,) if isinstance(self.layer, int) else self.layer

    def tokens(self, backbone: Backbone, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, h, w, D) float32: these tokens of a batch of framed photos."""
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
        """The same as JSON values, one spelling for one meaning: the last layer is -1, all others count from 0.

        Raises
        ------
        ModelError
            If the network has no such layer.
        """
        found = [record.layer_index(layer) for layer in self.layers]
        layers = [-1 if layer == record.depth - 1 else layer for layer in found]
        return {
            "layer": layers[0] if len(layers) == 1 else layers,
            "facet": self.facet,
            "final_norm": self.final_norm or self.facet != "token",
            "token_norm": self.token_norm,
        }
