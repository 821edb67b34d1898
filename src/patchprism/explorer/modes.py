"""Clusters and attention as modes of the page, with the values that the lenses of these names find."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import ModelError, OptionError
from patchprism.jobs.engines.local import LocalEngine
from patchprism.jobs.fitting import walk_over
from patchprism.lenses import attention
from patchprism.lenses.attention import check_backbone, class_attention
from patchprism.lenses.clusters import AUTO_COUNTS, cluster, rows_to_fit
from patchprism.lenses.looking import scene_of
from patchprism.lenses.options import LensOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.explorer.message import Message
    from patchprism.jobs.view import View
    from patchprism.lenses.clusters import Clustering

    Tell = Callable[[str, int, int | None], None]


def find_clusters(
    view: View, counts: Sequence[int | str], *, tell: Tell | None = None
) -> list[tuple[NDArray[np.int8], dict[str, Any]]]:
    """Clusters of the patches of all photos, as the lens ``clusters`` finds them.

    Parameters
    ----------
    view : View
    counts : sequence of int or "auto"
        Numbers of clusters, each from 2 to 12. Numbers above that of different patches are left out, except the
        first.
    tell : callable, optional
        Called as ``tell("clusters", done, total)``; may raise an exception to stop the work.

    Returns
    -------
    list of (labels, info)
        Labels of all patches, (N,) int8, counted from 0 for the largest cluster. ``info`` has ``count`` and, with
        ``"auto"``, ``silhouette``: the best mean silhouette, or None if there was no choice.

    Raises
    ------
    OptionError
        If there are fewer different patches than the first number.
    """
    scene = scene_of(view, LensOptions())
    rows = rows_to_fit(scene, walk_over(scene.source, LocalEngine()))
    found: list[tuple[NDArray[np.int8], dict[str, Any]]] = []
    labels: dict[int | str, NDArray[np.int8]] = {}  # "auto" gives those of the number that it chooses as well
    for number, count in enumerate(counts):
        if tell:
            tell("clusters", number, len(counts))
        if count in labels:
            found.append((labels[count], {"count": count}))
            continue
        try:
            made = cluster(rows, count, seed=scene.options.seed, agreement=False)
        except OptionError:
            if not found:
                raise
            break
        k = len(made.centers)
        info: dict[str, Any] = {"count": k}
        if count == "auto":
            best = made.silhouettes.get(k)
            info["silhouette"] = None if best is None else round(best, 4)
        labels[k] = _labels(view, made)
        found.append((labels[k], info))
    return found


def _labels(view: View, made: Clustering) -> NDArray[np.int8]:
    return np.concatenate([made.assign(tokens).ravel() for tokens in view.features]).astype(np.int8)


def attention_layer(view: View) -> int:
    """The layer whose attention is shown: the layer of the tokens, or the last layer if there are several."""
    layer = view.settings.get("layer")
    return layer if isinstance(layer, int) else -1


def can_attend(view: View, backbone: Backbone) -> bool:
    """Whether a network provides the attention of its class token."""
    try:
        check_backbone(backbone, has_points=False, layer=attention_layer(view))
    except ModelError:
        return False
    return True


def find_attention(
    view: View, backbone: Backbone, *, tell: Tell | None = None
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The attention of the class token in each photo, averaged over heads, as in the lens ``attention``.

    Parameters
    ----------
    view : View
    backbone : Backbone
        The backbone of the view.
    tell : callable, optional
        Called as ``tell("attention", done, total)``; may raise an exception to stop the work.

    Returns
    -------
    weights : ndarray, shape (N,), float32
        Weights of all patches; 0 in missing photos. If the grid of the tokens is finer than that of the network,
        patches have the weight of the network's patch that contains them.
    info : dict
        ``layer``, counted from 0, and ``tops``: for each photo the weight that is drawn brightest, the 99th percentile.

    Raises
    ------
    ModelError
        If the network has no attention, or no class token.
    FeaturesError
        If the attention of a photo is not finite.
    """
    layer = attention_layer(view)
    check_backbone(backbone, has_points=False, layer=layer)
    weights: list[NDArray[np.float32]] = []
    tops: list[float] = []
    for i, (name, grid) in enumerate(zip(view.names, view.features.grids, strict=True)):
        if tell:
            tell("attention", i, len(view))
        photo = view.photos.read(i)
        if i in view.photos.lost:
            weights.append(np.zeros(grid[0] * grid[1], np.float32))
            tops.append(0.0)
            continue
        found = class_attention(backbone, view.framing, photo, name=name, layer=layer)
        tops.append(attention.top(found))
        along = [np.arange(cells) * own // cells for cells, own in zip(grid, found.shape, strict=True)]
        weights.append(found[np.ix_(*along)].ravel())
    return np.concatenate(weights), {"layer": backbone.layer_index(layer), "tops": tops}


def carry_modes(
    message: Message, view: View, backbone: Backbone | None = None, *, tell: Tell | None = None
) -> None:
    """Add the modes to the message of a single file, which cannot request them from a server.

    Parameters
    ----------
    message : Message
        Message of the view. It gets clusters for every number that ``"auto"`` of the lens tries.
    view : View
    backbone : Backbone, optional
        The backbone of the view. With it, the message also gets attention.

    Raises
    ------
    ModelError
        If the network has no attention, or no class token.
    """
    if backbone is not None:
        check_backbone(backbone, has_points=False, layer=attention_layer(view))
    try:
        (_, auto), *numbered = find_clusters(view, ["auto", *AUTO_COUNTS], tell=tell)
    except OptionError:
        pass  # all patches are alike
    else:
        message.header["clusters"] = {"counts": [info["count"] for _, info in numbered], "auto": auto}
        message.add("clusters", "int8", np.stack([labels for labels, _ in numbered]))
    if backbone is not None:
        weights, said = find_attention(view, backbone, tell=tell)
        message.header["attention"] = {"layer": said["layer"], "tops": said["tops"]}
        message.add("attention", "float32", weights)


def packed(info: dict[str, Any], values: NDArray[Any]) -> bytes:
    """The response to a served page: length of ``info`` as JSON (uint32), this JSON, the values; little-endian."""
    text = json.dumps(info).encode()
    return struct.pack("<I", len(text)) + text + values.astype(values.dtype.newbyteorder("<")).tobytes()
