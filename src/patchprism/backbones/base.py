"""What a backbone is, and the registry of those that can be named. Importing it loads no torch."""

from __future__ import annotations

import difflib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from patchprism.errors import ModelError, OptionError
from patchprism.support import checks
from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

# What loading tells while it downloads: progress(message, done_bytes, total_bytes or None).
Progress = Callable[[str, int, int | None], None]

DEVICES = ("auto", "cpu", "cuda", "mps")
Query = Literal["cls"] | tuple[int, int]

DTYPES = ("auto", "float32", "bfloat16", "float16")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class BackboneRecord:
    """All that is known of a backbone before its weights are loaded.

    Attributes
    ----------
    name : str
        What the user calls it.
    family : str
        Key of the code that builds it, e.g. ``"dinov2"``.
    patch_size : int
        Side of a patch, in pixels of model input.
    width : int
        Length D of a patch token.
    depth, heads : int
        Number of blocks, and of attention heads (0 for a convolutional network).
    prefix_tokens : int
        Tokens before the patches (class token and registers).
    mean, std : tuple of float or None
        Normalisation of RGB in [0, 1]; None where the model's files do not say it.
    n_parameters : int
        Number of parameters.
    licence : str
        SPDX name of the weights' licence.
    source : str
        Address of the weights, or the package that holds them.
    download_bytes : int
        Size of the download, 0 where nothing is downloaded.
    hub_repo : str
        The twin on the Hugging Face hub, empty where there is none.
    """

    name: str
    family: str
    patch_size: int
    width: int
    depth: int
    heads: int
    prefix_tokens: int
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    n_parameters: int
    licence: str
    source: str
    download_bytes: int = 0
    hub_repo: str = ""


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Where a backbone's weights came from.

    Attributes
    ----------
    source : str
        Address, repository or package, as a person would look for it.
    path : str
        The file that was read, empty for networks that have none.
    sha256 : str
        SHA-256 of that file in hexadecimal, empty for networks that have none.
    taken_from : str
        Where in a training checkpoint the network was, e.g. ``"teacher.backbone"``; empty where the file holds
        nothing but the network.
    left_out : tuple of str
        What else that file holds: other networks, heads, the optimizer.
    """

    source: str
    path: str = ""
    sha256: str = ""
    taken_from: str = ""
    left_out: tuple[str, ...] = ()

    def report(self) -> dict[str, Any]:
        """What reports say of the weights, as JSON values."""
        taken: dict[str, Any] = {}
        if self.taken_from or self.left_out:
            taken = {"taken_from": self.taken_from, "left_out": list(self.left_out)}
        return {"source": self.source, "file": self.path, "sha256": self.sha256, **taken}

    def __str__(self) -> str:
        """The source, and what was taken from it and what was not."""
        words = [f"its {self.taken_from}"] if self.taken_from else []
        if self.left_out:
            more = f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""
            words.append(f"without {', '.join(self.left_out[:3])}{more}")
        return f"{self.source} ({', '.join(words)})" if words else self.source


class Backbone(ABC):
    """A frozen network that turns pixels into patch tokens.

    Attributes
    ----------
    record : BackboneRecord
    weights : WeightsOrigin
    device : torch.device
    dtype : torch.dtype
        What the network computes in; tokens always come out in float32.
    """

    record: BackboneRecord
    weights: WeightsOrigin
    device: torch.device
    dtype: torch.dtype

    facets: tuple[str, ...] = ("token",)
    """What can be had of a layer: its output (``"token"``), or its attention's query, key or value."""

    has_attention: bool = False
    """Whether :meth:`attention` and :meth:`rollout` work."""

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({self.record.name}, {self.device}, {dtype})"

    @property
    def depth(self) -> int:
        """Number of layers that can be asked for."""
        return self.record.depth

    @staticmethod
    def from_callable(
        fn: Callable[[torch.Tensor], torch.Tensor],
        *,
        patch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        name: str = "custom",
        width: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Backbone:
        """A backbone around a function of one's own; see :class:`~patchprism.backbones.callable.CallableBackbone`.

        Parameters
        ----------
        fn : callable
            Pixels ``(B, 3, H, W)`` -> patch tokens ``(B, h, w, D)``, or ``(B, h * w, D)`` row by row and without
            prefix tokens, where ``h = H / patch_size`` and ``w = W / patch_size``.
        patch_size : int
            Pixels of model input along a token's side.
        mean, std : sequence of three float
            Normalisation of RGB in [0, 1] that ``fn`` expects.
        name : str
            What reports and prisms call it. Prisms tell networks apart by it.
        width : int, optional
            Length D of a token, checked when given; otherwise what the first call returns.
        device, dtype : str
            Where and in what precision ``fn`` gets its pixels.

        Raises
        ------
        OptionError
            If an argument has a value that is not allowed.
        """
        from patchprism.backbones.callable import CallableBackbone

        return CallableBackbone(
            fn, patch_size=patch_size, mean=mean, std=std, name=name, width=width, device=device, dtype=dtype
        )

    def patch_tokens(
        self, pixels: torch.Tensor, *, layer: int = -1, facet: str = "token", norm: bool = True
    ) -> torch.Tensor:
        """Patch tokens of a batch of framed photos.

        Parameters
        ----------
        pixels : torch.Tensor, shape (B, 3, H, W)
            Normalised model input on any device; H and W multiples of the patch size.
        layer, facet, norm
            As in :meth:`layer_tokens`; the defaults give the network's own patch tokens.

        Returns
        -------
        torch.Tensor, shape (B, H / patch, W / patch, D), float32, on the backbone's device

        Raises
        ------
        OptionError
            If the shape is not as above.
        ModelError
            If the network has no such layer or facet.
        """
        return self.layer_tokens(pixels, [layer], facet=facet, norm=norm)[0]

    def layer_tokens(
        self, pixels: torch.Tensor, layers: Sequence[int], *, facet: str = "token", norm: bool = True
    ) -> list[torch.Tensor]:
        """Patch tokens of several layers, all from one forward pass.

        Parameters
        ----------
        pixels : torch.Tensor, shape (B, 3, H, W)
            Normalised model input on any device; H and W multiples of the patch size.
        layers : sequence of int
            Blocks counted from 0, or from the end with negative numbers; -1 is the last.
        facet : str
            One of ``facets``: ``"token"`` is the layer's output; ``"query"``, ``"key"`` and ``"value"`` are the
            linear projections inside its attention, all heads side by side, before any rotation by position.
        norm : bool
            Whether the network's final norm is applied to the tokens, of earlier layers too. Without effect on
            the other facets, and in networks without a final norm.

        Returns
        -------
        list of torch.Tensor, each (B, H / patch, W / patch, D), float32, on the backbone's device
            In the order of ``layers``.

        Raises
        ------
        OptionError
            If the shape is not as above, or ``layers`` is empty.
        ModelError
            If the network has no such layer or facet.
        """
        self._check_pixels(pixels)
        found_layers = checks.layers("layers", layers)
        several = found_layers if isinstance(found_layers, tuple) else (found_layers,)
        wanted = [self.layer_index(layer) for layer in several]
        norm = checks.flag("norm", norm)
        if checks.text("facet", facet) not in self.facets:
            raise ModelError(f"{self.record.name} has no facet {facet!r}: it has {', '.join(self.facets)}")
        with own_settings(inference=True):
            found = self._layers(
                pixels.to(device=self.device, dtype=self.dtype), sorted(set(wanted)), facet, norm
            )
            return [found[layer].float() for layer in wanted]

    def layer_index(self, layer: int) -> int:
        """A layer counted from 0.

        Raises
        ------
        ModelError
            If the network has no such layer.
        """
        layer = int(checks.integer("layer", layer))
        if not -self.depth <= layer < self.depth:
            last = self.depth - 1
            raise ModelError(
                f"{self.record.name} has no layer {checks.said(layer)}: layers are 0 to {last}, or -{self.depth} to "
                "-1 from the end"
            )
        return layer % self.depth

    def attention(self, pixels: torch.Tensor, *, layer: int = -1, query: Query = "cls") -> torch.Tensor:
        """How much one token attends to every patch, head by head.

        Only the row asked for is computed, so memory grows with the number of patches and not with its square.

        Parameters
        ----------
        pixels : torch.Tensor, shape (B, 3, H, W)
            As in :meth:`patch_tokens`.
        layer : int
            Block whose attention it is, counted as in :meth:`layer_tokens`.
        query : "cls" or tuple of two int
            The token that attends: the class token, or the patch in this (row, column) of the grid.

        Returns
        -------
        torch.Tensor, shape (B, heads, H / patch, W / patch), float32
            Softmax weights. What goes to class token and registers is left out, so a head's sum is at most 1.

        Raises
        ------
        OptionError
            If the pixels' shape is wrong, or the patch lies outside the grid.
        ModelError
            If the network cannot give its attention, or has no such layer or no class token.
        """
        token, grid = self._attending(pixels, query)
        index = self.layer_index(layer)
        with own_settings(inference=True):
            rows = self._attention_row(pixels.to(device=self.device, dtype=self.dtype), index, token)
        patches = rows[:, :, self.record.prefix_tokens :]
        return patches.reshape(*patches.shape[:2], *grid)

    def rollout(self, pixels: torch.Tensor, query: Query = "cls") -> torch.Tensor:
        """How much of one token's output comes from each patch, through all layers: attention rollout.

        Each layer's matrix is ``0.5 * mean over heads + 0.5 * identity``, and the row is that of their product.
        It is carried back from the last layer to the first, so no product of matrices is ever made.

        Parameters
        ----------
        pixels, query
            As in :meth:`attention`.

        Returns
        -------
        torch.Tensor, shape (B, H / patch, W / patch), float32
            Shares of the whole; what comes from class token and registers is left out.

        Raises
        ------
        OptionError, ModelError
            As :meth:`attention`.

        References
        ----------
        Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020.
        """
        import torch

        token, grid = self._attending(pixels, query)
        with own_settings(inference=True):
            # One photo at a time: the layers' inputs are held until the row has passed them.
            rows = [
                self._rollout_row(pixels[i : i + 1].to(device=self.device, dtype=self.dtype), token)
                for i in range(len(pixels))
            ]
        return torch.cat(rows)[:, self.record.prefix_tokens :].reshape(len(pixels), *grid)

    def _attending(self, pixels: torch.Tensor, query: Query) -> tuple[int, tuple[int, int]]:
        """Index of the query's token in the sequence, and the grid; refuses what cannot be asked."""
        if not self.has_attention:
            raise ModelError(f"{self.record.name} cannot give its attention")
        self._check_pixels(pixels)
        h, w = (side // self.record.patch_size for side in pixels.shape[-2:])
        if isinstance(query, str):
            if query != "cls":
                raise OptionError(f"query must be 'cls' or a patch's (row, column), got {query!r}")
            if not self._has_class_token():
                raise ModelError(
                    f"{self.record.name} has no class token: query must be a patch's (row, column)"
                )
            return 0, (h, w)
        try:
            row, column = (int(checks.integer("query", each)) for each in query)
        except (TypeError, ValueError):
            checks.refuse("query", "'cls' or a patch's (row, column)", query)
        if not (0 <= row < h and 0 <= column < w):
            raise OptionError(
                f"query {checks.said((row, column))} lies outside the grid of {h} rows and {w} columns"
            )
        return self.record.prefix_tokens + row * w + column, (h, w)

    def _check_pixels(self, pixels: torch.Tensor) -> None:
        import torch

        if not isinstance(pixels, torch.Tensor) or pixels.is_complex() or pixels.layout != torch.strided:
            checks.refuse("pixels", "a tensor (B, 3, H, W) of real numbers", pixels)
        patch, shape = self.record.patch_size, tuple(pixels.shape)
        if len(shape) != 4 or shape[1] != 3 or 0 in shape or shape[2] % patch or shape[3] % patch:
            raise OptionError(f"pixels must be (B, 3, H, W) with H and W multiples of {patch}, got {shape}")

    def _has_class_token(self) -> bool:
        return self.record.prefix_tokens > 0

    @abstractmethod
    def _layers(
        self, pixels: torch.Tensor, layers: Sequence[int], facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        """(B, 3, H, W) in the backbone's dtype -> (B, h, w, D) of each layer; they ascend and exist."""

    def _attention_row(self, pixels: torch.Tensor, layer: int, token: int) -> torch.Tensor:
        """(B, heads, N) float32: one token's attention to all; only called if ``has_attention``."""
        raise NotImplementedError

    def _rollout_row(self, pixels: torch.Tensor, token: int) -> torch.Tensor:
        """(B, N) float32: one token's row of the rollout; only called if ``has_attention``."""
        raise NotImplementedError


_RECORDS: dict[str, BackboneRecord] = {}


def register(records: Iterable[BackboneRecord]) -> None:
    """Add records to the registry; a name can be taken once."""
    for record in records:
        if record.name in _RECORDS:
            raise OptionError(f"model {record.name!r} is registered already")
        _RECORDS[record.name] = record


def records() -> tuple[BackboneRecord, ...]:
    """Every registered record, in the order of registration."""
    return tuple(_RECORDS.values())


def find_record(name: str) -> BackboneRecord:
    """The record of a model.

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
    if name in _RECORDS:
        return _RECORDS[name]
    adapter = adapter_of(name)
    if adapter == "hf":
        from patchprism.backbones import huggingface

        return huggingface.find_record(name)
    if adapter == "timm":
        from patchprism.backbones import timm_models

        return timm_models.find_record(name)
    raise ModelError(f"unknown model {name!r}: {_meant(name)}")


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
    """What somebody who gives an unknown name for a model may have meant."""
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
        return f"a file of weights goes with the model that it is of, as in --model dinov2_vits14 --weights {bare}"
    if lowered in _RECORDS:
        return f"did you mean {lowered}?"
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", bare):
        return f"did you mean hf:{bare}, of the Hugging Face hub?"
    if lowered.startswith("dinov3"):
        rest = re.sub(r"[-_]", "", lowered.removeprefix("dinov3"))
        sizes = sorted((size for size in _DINOV3 if rest.startswith(size)), key=len)
        repo = f"facebook/dinov3-{_DINOV3[sizes[-1] if sizes else 'vits16']}"
        return f"DINOv3 comes from the Hugging Face hub, as hf:{repo}"
    if "_patch" in lowered:
        return f"did you mean timm:{bare}?"
    near = difflib.get_close_matches(name, _RECORDS, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "`patchprism models` lists those that come with PatchPrism; others are hf:OWNER/NAME or timm:NAME"


def adapter_of(name: str) -> str:
    """``"hf"`` or ``"timm"`` for names with these prefixes, empty for all others.

    Raises
    ------
    ModelError
        If the name asks torch.hub for a model.
    """
    prefix, colon, _ = name.partition(":")
    if not colon:
        return ""
    if prefix in ("hub", "torchhub", "torch.hub"):
        raise ModelError(
            f"model {name!r}: torch.hub is not supported on purpose, since it runs code from the network; "
            "take hf:REPO, timm:NAME, or Backbone.from_callable with a network you loaded yourself"
        )
    return prefix if prefix in ("hf", "timm") else ""


def check_device(name: str, value: Any) -> str:
    """A device's name, if its kind is one of ``DEVICES``; whether this machine has it is not asked."""
    device = checks.device(name, value)
    if device.split(":")[0] not in DEVICES:
        checks.refuse(name, f"one of {', '.join(DEVICES)}", value)
    return device


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device meant by ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"`` or e.g. ``"cuda:1"``.

    Raises
    ------
    OptionError
        If the name is not one of these, or this machine has no such device.
    """
    device = check_device("device", device)
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    try:
        resolved = torch.device(device)
    except Exception as error:  # torch raises several
        raise OptionError(f"device {checks.said(device)} is not a torch device", option="device") from error
    there = {"cuda": torch.cuda.device_count() if has_cuda else 0, "mps": int(has_mps), "cpu": 1}
    if (resolved.index or 0) >= there[resolved.type]:
        raise OptionError(f"device {checks.said(device)} is not available on this machine", option="device")
    return resolved


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype meant by a name; ``"auto"`` is float32, so that every device gives the same colours.

    Raises
    ------
    OptionError
        If the name is not one of ``DTYPES``.
    """
    dtype = checks.dtype("dtype", dtype, allowed=DTYPES)
    import torch

    resolved: torch.dtype = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    return resolved
