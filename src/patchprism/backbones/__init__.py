"""Frozen networks that turn pixels into patch tokens. Importing it loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchprism.backbones.base import (
    DTYPES,
    Backbone,
    BackboneRecord,
    Progress,
    WeightsOrigin,
    adapter_of,
    check_device,
    find_record,
    records,
    register,
    resolve_device,
    resolve_dtype,
)
from patchprism.backbones.catalog import DINOV2, EFFICIENTNET
from patchprism.backbones.weights import download_weights, locate_weights, obtain_weights
from patchprism.errors import OptionError
from patchprism.support import checks
from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    import os

__all__ = [
    "Backbone",
    "BackboneRecord",
    "Progress",
    "WeightsOrigin",
    "download_weights",
    "find_record",
    "load_backbone",
    "locate_weights",
    "records",
]

register((*DINOV2, *EFFICIENTNET))


def load_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
    download: bool = True,
) -> Backbone:
    """A backbone with its weights, ready to turn pixels into patch tokens.

    Parameters
    ----------
    name : str
        A registered name, e.g. ``"dinov2_vits14"``; ``records()`` lists all. ``hf:REPO_OR_DIR[@REVISION]``
        is read by ``transformers`` (an extra), ``timm:NAME`` by ``timm`` (an extra).
    weights : str or os.PathLike, optional
        A file, an ``http(s)://`` address, or ``hf:REPO[@REVISION]`` on the Hugging Face hub, in the official
        or in Hugging Face's layout. Without it: torch.hub's cache, then PatchPrism's own, then the official
        address. Not for ``hf:`` models, which bring their own; for ``timm:`` ones, a file.
    device : {"auto", "cpu", "cuda", "mps"} or e.g. "cuda:1"
    dtype : {"auto", "float32", "bfloat16", "float16"}
        What the network computes in; ``"auto"`` is float32.
    progress : callable, optional
        Called as ``progress(message, done_bytes, total_bytes or None)`` while weights are downloaded.
    download : bool
        Whether the network may be used.

    Returns
    -------
    Backbone

    Raises
    ------
    ModelError
        If the name is not known.
    OptionError
        If ``device`` or ``dtype`` is not known or not available here.
    WeightsError
        If the weights cannot be found, fetched, trusted or loaded.
    ExtraError
        If the model needs a package that is not installed.
    """
    name = checks.text("name", name)
    weights = None if weights is None else checks.path("weights", weights)
    if not adapter_of(name):
        find_record(name)  # an unknown name is refused before torch is loaded
    device, dtype = check_device("device", device), checks.dtype("dtype", dtype, allowed=DTYPES)
    download = checks.flag("download", download)
    checks.callback("progress", progress)
    with own_settings(inference=False):
        return _load(name, weights, device, dtype, progress, download)


def _load(
    name: str,
    weights: str | None,
    device: str,
    dtype: str,
    progress: Progress | None,
    download: bool,
) -> Backbone:
    adapter = adapter_of(name)
    if adapter == "hf":
        if weights is not None:
            raise OptionError(
                f"weights cannot be given with {name!r}, which brings its own; name their folder as hf:FOLDER"
            )
        from patchprism.backbones import huggingface

        return huggingface.load(name, device=device, dtype=dtype, progress=progress, download=download)
    if adapter == "timm":
        from patchprism.backbones import timm_models

        return timm_models.load(
            name,
            weights=weights,
            device=device,
            dtype=dtype,
            progress=progress,
            download=download,
        )
    record = find_record(name)
    # A wrong device is refused before gigabytes are fetched for it.
    torch_device, torch_dtype = resolve_device(device), resolve_dtype(dtype)
    origin = obtain_weights(record, weights, progress=progress, download=download)
    if record.family == "dinov2":
        from patchprism.backbones import dinov2

        return dinov2.load(record, origin, torch_device, torch_dtype)
    from patchprism.backbones import efficientnet

    return efficientnet.load(record, origin, torch_device, torch_dtype)
