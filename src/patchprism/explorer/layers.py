"""Other layers of a network for the page: their tokens from one forward pass, and colours turned to agree."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.features.extraction import Batches, PhotoTokens, extract
from patchprism.jobs.settings import describe_origin
from patchprism.lenses.comparison import layer_widths
from patchprism.lenses.turning import CompareCell, fit_turn
from patchprism.support.memory import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone, BackboneRecord
    from patchprism.explorer.message import Header, LayersInfo, TurnInfo
    from patchprism.features.extraction import Photos
    from patchprism.jobs.settings import Settings
    from patchprism.jobs.view import View
    from patchprism.photos.framing import Framing

MAX_BYTES = 1 << 30  # of tokens that a bank keeps


def shown_layers(view: View) -> tuple[int, ...]:
    """The layers whose tokens a view shows, counted from 0; several where they lie side by side."""
    layer = view.settings.get("layer")
    several = (
        [view.record.layer if layer is None else layer] if not isinstance(layer, (tuple, list)) else layer
    )
    return tuple(view.record.layer_index(each) for each in several)


def layers_info(view: View) -> LayersInfo | None:
    """What the page is told of a view's layers; None where there are no others: a store, features of the user's."""
    if view.store is not None or view.record.family == "own" or view.record.depth < 2:
        return None
    return {"depth": view.record.depth, "shown": list(shown_layers(view))}


@dataclass
class _Kept:
    """One photo's tokens of some layers; ``source`` is held so that its identity stays its own."""

    source: Any
    photo: PhotoTokens
    layers: dict[int, NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.layers.values())


class LayerBank:
    """Tokens of all layers of photos that went through a network once.

    Parameters
    ----------
    most : int
        Bytes that are kept; a quarter of the memory that is free, if that is less. What was not used for longest goes
        first. Where all layers do not fit, a pass keeps the one that is asked for and those next to it.
    wanted : sequence of int, optional
        The layers that will be asked for, counted from 0; all by default.
    """

    def __init__(self, most: int = MAX_BYTES, *, wanted: Sequence[int] | None = None) -> None:
        self.most, self.wanted = most, wanted
        self._kept: OrderedDict[tuple[str, Any], _Kept] = OrderedDict()

    def tokens(
        self,
        photos: Photos,
        backbone: Backbone,
        settings: Settings,
        framing: Framing,
        *,
        n_patches: int,
        told: Callable[[int], Any],
    ) -> list[PhotoTokens]:
        """Tokens of all photos, from memory or else from one forward pass for as many layers as memory holds.

        Parameters
        ----------
        settings : Settings
            Resolved; ``layer`` is the one that is asked for.
        n_patches : int
            How many patches the photos have, or about as many.
        told : callable
            Called with the number of photos that are done.
        """
        options = settings.token_options()
        layer = backbone.record.layer_index(options.layers[0])
        origin = describe_origin(backbone.identity, settings, framing)
        network = json.dumps({key: value for key, value in origin.items() if key != "layer"}, sort_keys=True)
        keys = [(network, _identity(source)) for source in photos.sources]
        todo = [
            i for i, key in enumerate(keys) if key not in self._kept or layer not in self._kept[key].layers
        ]
        done = len(photos) - len(todo)
        told(done)
        if todo:
            layers = self._layers(backbone.record, layer, n_patches * options.refine**2)
            widths = layer_widths(backbone, layers, options.facet)
            ends = np.cumsum(widths)
            options = replace(options, layer=tuple(layers))
            for each in extract(
                photos, backbone, framing, indices=todo, batches=Batches(size=1), options=options
            ):
                parts = {
                    number: np.ascontiguousarray(each.tokens[..., end - width : end])
                    for number, width, end in zip(layers, widths, ends, strict=True)
                }
                photo = replace(each, tokens=parts[layer])
                self._kept[keys[each.index]] = _Kept(photos.sources[each.index], photo, parts)
                done += 1
                told(done)
        found = []
        for i, key in enumerate(keys):
            self._kept.move_to_end(key)
            kept = self._kept[key]
            found.append(replace(kept.photo, index=i, tokens=kept.layers[layer]))
        self._forget()
        return found

    def _layers(self, record: BackboneRecord, layer: int, n_patches: int) -> list[int]:
        """The layers of one pass: all that are wanted, or those nearest to one that fit into memory."""
        candidates = sorted({layer, *(range(record.depth) if self.wanted is None else self.wanted)})
        fit = max(1, self._room() // max(4 * n_patches * record.width, 1))
        return sorted(sorted(candidates, key=lambda other: abs(other - layer))[:fit])

    def _room(self) -> int:
        return min(self.most, free_memory() // 4)

    def _forget(self) -> None:
        room, total = self._room(), sum(each.nbytes for each in self._kept.values())
        while total > room and len(self._kept) > 1:
            total -= self._kept.popitem(last=False)[1].nbytes


def _identity(source: Any) -> Any:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else id(source)


def turn_of(view: View, other: View, header: Header) -> TurnInfo | None:
    """How a view's colours are turned to agree with those of another view of the same photos.

    The same as :func:`~patchprism.compare` does it; see :mod:`patchprism.lenses.turning`.

    Parameters
    ----------
    header : Header
        Of the other view's message, whose ranges the turned colours are scaled by.

    Returns
    -------
    TurnInfo or None
        None where too few patches are foreground in both, or the photos are not the same.
    """
    return turn_between(cell_of(view), cell_of(other), header) if view.names == other.names else None


def turn_between(cell: CompareCell, other: CompareCell, header: Header) -> TurnInfo | None:
    """The same of two cells of the same photos, as :func:`cell_of` gives them."""
    turn = fit_turn(cell, other)
    if turn is None:
        return None
    shifted = turn.residual_shifted
    return {
        "rotation": turn.rotation.tolist(),
        "center": turn.center.tolist(),
        "target": turn.target.tolist(),
        "residual": round(turn.residual, 6),
        "shuffled": round(turn.residual_shuffled, 6),
        "shifted": None if shifted is None else round(shifted, 6),
        "patches": turn.n_shared,
        "reference": {
            "model": header["model"]["name"],
            "layers": header.get("layers"),
            "components": [abs(each) for each in header["fit"]["components"]],
            "deviation": header["object"]["deviation"],
            "ranges": header["ranges"],
        },
    }


def cell_of(view: View) -> CompareCell:
    """A view as what is turned."""
    flat = [view.prism.object_components(each.reshape(-1, each.shape[-1])) for each in view.features]
    return CompareCell(
        model=view.record.name,
        layer=shown_layers(view) if view.record.family != "own" else -1,
        prism=view.prism,
        parts=view.parts,
        components=[each.reshape(*part.score.shape, -1) for each, part in zip(flat, view.parts, strict=True)],
        crops=view.crops,
    )
