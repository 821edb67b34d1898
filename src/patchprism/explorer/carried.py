"""Several layers in one file: a message that contains the messages of other layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchprism.errors import OptionError
from patchprism.explorer.build import build_message
from patchprism.explorer.fit_requests import FitRequest
from patchprism.explorer.layers import LayerBank, cell_of, layers_info, turn_between
from patchprism.explorer.work import Workshop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.backbones import Backbone
    from patchprism.explorer.message import Message
    from patchprism.jobs.run import Tell
    from patchprism.jobs.view import View


def check_carrying(view: View, name: str) -> int:
    """The layer of a view, to which a page can add others.

    Parameters
    ----------
    name : str
        What the caller calls the option, for the error.

    Raises
    ------
    OptionError
        If the view comes from a feature store or from features of the user, or shows several layers at once.
    """
    if view.store is not None:
        raise OptionError(f"{name} needs the photos: a feature store holds its own layer only")
    known = layers_info(view)
    if known is None:
        own = (
            "these are features of your own" if view.record.family == "own" else f"{view.record.name} has one"
        )
        raise OptionError(f"{name} needs a network with several layers; {own}")
    if len(known["shown"]) != 1:
        shown = ", ".join(map(str, known["shown"]))
        raise OptionError(f"{name} needs photos that show a single layer; these show layers {shown} together")
    return known["shown"][0]


def carry_layers(
    message: Message,
    view: View,
    backbone: Backbone,
    layers: Sequence[int],
    tell: Tell,
    *,
    bank: LayerBank | None = None,
) -> Message:
    """Put the messages of other layers into the message of a view.

    Parameters
    ----------
    message : Message
        Message of the view.
    layers : sequence of int
        Layers, counted from 0, or from the end with negative numbers. The layer of the view is always among them.
    bank : LayerBank, optional
        Tokens of the layers, if they were kept when the view was made. By default, the network runs over the photos
        once, for all layers.

    Raises
    ------
    OptionError
        As :func:`check_carrying`.
    ModelError
        If the network has no such layer.
    """
    own = check_carrying(view, "carry_layers")
    numbers = sorted({own, *(view.record.layer_index(layer) for layer in layers)})
    if numbers == [own]:
        return message
    workshop = Workshop(view, b"", backbone, bank=bank or LayerBank(wanted=numbers))
    messages, cells = {own: message}, {own: cell_of(view)}
    try:
        for layer in numbers:
            if layer != own:
                other = workshop.moved(view, FitRequest(layer=layer), tell)
                messages[layer] = build_message(
                    other, title=message.header["title"], progress=tell, photos=False
                )
                cells[layer] = cell_of(other)
    finally:
        workshop.close()
    for layer in numbers:
        if layer != own:
            message.add(f"layer-{layer}", "raw", messages[layer].to_bytes())
    message.header["carried"] = {
        "layers": numbers,
        "turns": {
            str(one): {
                str(other): turn_between(cells[one], cells[other], messages[other].header)
                for other in numbers
                if other != one
            }
            for one in numbers
        },
    }
    return message
