"""Other layers of a network for the page: tokens from one forward pass, and turns that make colours agree."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.features.extraction import Batches, PhotoTokens, extract
from patchprism.features.options import TokenOptions
from patchprism.lenses.comparison import layer_widths
from patchprism.lenses.turning import CompareCell, fit_turn
from patchprism.support.memory import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone, BackboneRecord
    from patchprism.errors import PhotoError
    from patchprism.explorer.message import Header, LayersInfo, TurnInfo
    from patchprism.features.extraction import Photos
    from patchprism.jobs.view import View
    from patchprism.photos.framing import Framing

MAX_BYTES = 1 << 30  # of the tokens that a bank keeps


def shown_layers(view: View) -> tuple[int, ...]:
    """The layers of a view, counted from 0; several if their tokens are concatenated."""
    layer = view.settings.get("layer")
    several = (
        [view.record.layer if layer is None else layer] if not isinstance(layer, (tuple, list)) else layer
    )
    return tuple(view.record.layer_index(each) for each in several)


def layers_info(view: View) -> LayersInfo | None:
    """The layers of a view, for the page; None for a store, features of the user, or a network with one layer."""
    if view.store is not None or view.record.family == "own" or view.record.depth < 2:
        return None
    return {"depth": view.record.depth, "shown": list(shown_layers(view))}


@dataclass
class _Kept:
    """The tokens of some layers of one photo. ``source`` is kept so that no other object can get its ``id``."""

    source: Any
    photo: PhotoTokens
    layers: dict[int, NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.layers.values())


class LayerBank:
    """Tokens of several layers of photos that went through a network once.

    Parameters
    ----------
    most : int
        Maximum number of bytes that are kept, if a quarter of the free memory is not less. Photos that were not used
        for the longest time are forgotten first.
    wanted : sequence of int, optional
        The layers that will be asked for, counted from 0; all by default.
    """

    def __init__(self, most: int = MAX_BYTES, *, wanted: Sequence[int] | None = None) -> None:
        self.most, self.wanted = most, wanted
        self._kept: OrderedDict[tuple[str, Any], _Kept] = OrderedDict()

    def extract(
        self,
        photos: Photos,
        backbone: Backbone,
        framing: Framing,
        *,
        indices: Iterable[int] | None = None,
        batches: Batches | None = None,
        failed: Callable[[int, PhotoError], None] | None = None,
        options: TokenOptions | None = None,
    ) -> Iterator[PhotoTokens]:
        """As :func:`~patchprism.features.extraction.extract`; keeps the tokens of the other wanted layers.

        ``options`` must name a single layer.
        """
        options = options or TokenOptions()
        layers = self._candidates(backbone.record, options)
        for each in self._pass(
            photos, backbone, framing, layers, options, indices=indices, batches=batches, failed=failed
        ):
            self._forget()
            yield each

    def tokens(
        self,
        photos: Photos,
        backbone: Backbone,
        framing: Framing,
        options: TokenOptions,
        *,
        n_patches: int,
        told: Callable[[int], Any],
    ) -> list[PhotoTokens]:
        """Tokens of all photos, from memory or else from one forward pass for as many layers as memory holds.

        Where not all layers fit, those next to the one that is asked for are kept.

        Parameters
        ----------
        options : TokenOptions
            ``layer`` is the single layer that is asked for.
        n_patches : int
            Number of patches of the photos, at least approximately.
        told : callable
            Called with the number of photos that are done.
        """
        layer = backbone.record.layer_index(options.layers[0])
        keys = [self._key(photos, index, backbone, framing, options) for index in range(len(photos))]
        todo = [
            i for i, key in enumerate(keys) if key not in self._kept or layer not in self._kept[key].layers
        ]
        done = len(photos) - len(todo)
        told(done)
        if todo:
            candidates = self._candidates(backbone.record, options)
            fit = max(1, self._room() // max(4 * n_patches * options.refine**2 * backbone.record.width, 1))
            layers = sorted(sorted(candidates, key=lambda other: abs(other - layer))[:fit])
            for _ in self._pass(
                photos, backbone, framing, layers, options, indices=todo, batches=Batches(size=1)
            ):
                done += 1
                told(done)
        found = []
        for i, key in enumerate(keys):
            self._kept.move_to_end(key)
            kept = self._kept[key]
            found.append(replace(kept.photo, index=i, tokens=kept.layers[layer]))
        self._forget()
        return found

    def _pass(
        self,
        photos: Photos,
        backbone: Backbone,
        framing: Framing,
        layers: Sequence[int],
        options: TokenOptions,
        **how: Any,
    ) -> Iterator[PhotoTokens]:
        """One forward pass that keeps the tokens of some layers; yields those of the layer of ``options``."""
        layer = backbone.record.layer_index(options.layers[0])
        widths = layer_widths(backbone, layers, options.facet)
        ends = np.cumsum(widths)
        several = replace(options, layer=tuple(layers))
        for each in extract(photos, backbone, framing, options=several, **how):
            parts = {
                number: np.ascontiguousarray(each.tokens[..., end - width : end])
                for number, width, end in zip(layers, widths, ends, strict=True)
            }
            photo = replace(each, tokens=parts[layer])
            key = self._key(photos, each.index, backbone, framing, options)
            self._kept[key] = _Kept(photos.sources[each.index], photo, parts)
            yield photo

    @staticmethod
    def _key(
        photos: Photos, index: int, backbone: Backbone, framing: Framing, options: TokenOptions
    ) -> tuple[str, Any]:
        """What the tokens of all layers of a photo depend on."""
        network = repr((backbone.identity, framing, replace(options, layer=-1), photos.range))
        return network, _identity(photos.sources[index])

    def _candidates(self, record: BackboneRecord, options: TokenOptions) -> list[int]:
        """The layers that one pass should give: the one that is asked for, and those that are wanted."""
        wanted = range(record.depth) if self.wanted is None else self.wanted
        return sorted({record.layer_index(options.layers[0]), *wanted})

    def _room(self) -> int:
        return min(self.most, free_memory() // 4)

    def _forget(self) -> None:
        room, total = self._room(), sum(each.nbytes for each in self._kept.values())
        while total > room and len(self._kept) > 1:
            total -= self._kept.popitem(last=False)[1].nbytes


def _identity(source: Any) -> Any:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else id(source)


def turn_of(view: View, other: View, header: Header) -> TurnInfo | None:
    """The turn that makes the colours of a view agree with those of another view of the same photos.

    It is the same as in :func:`~patchprism.compare`; see :mod:`patchprism.lenses.turning`.

    Parameters
    ----------
    header : Header
        Header of the message of the other view. The turned colours are scaled by its ranges.

    Returns
    -------
    TurnInfo or None
        None if too few patches are foreground in both, or if the photos differ.
    """
    return turn_between(cell_of(view), cell_of(other), header) if view.names == other.names else None


def turn_between(cell: CompareCell, other: CompareCell, header: Header) -> TurnInfo | None:
    """The same as :func:`turn_of`, for two cells that :func:`cell_of` returned."""
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
    """A view in the form that :func:`~patchprism.lenses.turning.fit_turn` needs."""
    flat = [view.prism.object_components(each.reshape(-1, each.shape[-1])) for each in view.features]
    return CompareCell(
        model=view.record.name,
        layer=shown_layers(view) if view.record.family != "own" else -1,
        prism=view.prism,
        parts=view.parts,
        components=[each.reshape(*part.score.shape, -1) for each, part in zip(flat, view.parts, strict=True)],
        crops=view.crops,
    )
