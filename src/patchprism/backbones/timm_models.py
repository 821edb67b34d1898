"""Networks of ``timm`` as backbones, through its ``forward_intermediates``.

Shapes in comments: B photos, N tokens (prefix and patches), D width, h x w the grid of patches.
"""

from __future__ import annotations

import difflib
import inspect
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from patchprism.backbones.attention import attention_row, roll_back
from patchprism.backbones.base import Backbone
from patchprism.backbones.checkpoint import read_checkpoint
from patchprism.backbones.devices import resolve_device, resolve_dtype
from patchprism.backbones.hub_files import HubModel, fetch_file, hub_answers, is_offline, unreachable
from patchprism.backbones.layouts import FoundNetwork, find_network
from patchprism.backbones.probing import inside, of_one_size, outputs_of, reason, running, to_grid
from patchprism.backbones.record import BackboneRecord, WeightsOrigin
from patchprism.backbones.weights import origin_of_file
from patchprism.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from patchprism.backbones.record import Progress

PREFIX = "timm:"
_FACETS = ("query", "key", "value")


def find_record(name: str) -> BackboneRecord:
    """The record of ``timm:NAME``.

    Raises
    ------
    ModelError
        If timm knows no such model, or it cannot give its layers.
    ExtraError
        If ``timm`` is not installed.
    """
    with _inside(name), torch.device("meta"):
        return _record(name, _create(name, None))


def _inside(name: str) -> AbstractContextManager[None]:
    return inside(name, "timm", "timm")


def fetch(name: str, progress: Progress | None = None, *, download: bool = True) -> WeightsOrigin:
    """Find the weights of ``timm:NAME`` in the Hugging Face cache, or fetch them into it.

    Raises
    ------
    ModelError
        If timm knows no such model.
    WeightsError
        If it has no weights, or they cannot be fetched.
    """
    with _inside(name):
        cfg = _pretrained_cfg(name)
    repo, _, revision = (getattr(cfg, "hf_hub_id", None) or "").partition("@")
    if not repo:
        raise WeightsError(
            f"{name}: timm names no weights for it on the Hugging Face hub; pass weights='FILE'"
        )
    if progress:
        progress(f"fetching {name}", 0, None)
    # timm's own repositories contain both files; an entry for another repository names its file.
    named = getattr(cfg, "hf_hub_filename", None)
    for file in (named,) if named else ("model.safetensors", "pytorch_model.bin"):
        path = fetch_file(name, repo, revision or None, file, download=download)
        if path is not None:
            commit = path.parent.name
            source = f"hf:{repo}@{commit}"
            digest = HubModel(name=name, folder=path.parent, source=source, repo=repo).check(path)
            return WeightsOrigin(source=source, path=str(path), sha256=digest)
    raise WeightsError(
        unreachable(name)
        if is_offline(download and hub_answers())
        else f"{name}: hf:{repo} contains no weights that can be read"
    )


def load(
    name: str, *, weights: str | None, device: str, dtype: str, progress: Progress | None, download: bool
) -> TimmBackbone:
    """The backbone of ``timm:NAME``, with timm's weights or those of a file.

    Raises
    ------
    ModelError, WeightsError, ExtraError
        As :func:`find_record` and :func:`fetch`; WeightsError also if the file is not this model's.
    """
    with _inside(name):
        _pretrained_cfg(name)
    torch_device, torch_dtype = resolve_device(device), resolve_dtype(dtype)
    if weights is not None:
        origin = origin_of_file(weights, f"for {name} only a file can be given")
    else:
        origin = fetch(name, progress, download=download)
    path = Path(origin.path)
    state = read_checkpoint(path)
    with _inside(name):
        if weights is not None:
            try:
                found = _found(name, state)
            except WeightsError as error:
                raise WeightsError(f"{path}: {error}") from error
            state, taken, left = found.state, found.taken_from, found.left_out
            origin = replace(origin, taken_from=taken, left_out=left)
        network = _create(name, state)
        backbone = TimmBackbone(_record(name, network), network, origin, torch_device, torch_dtype)
        backbone.probe()
        return backbone


class TimmBackbone(Backbone):
    """A network of ``timm`` with its weights.

    Parameters
    ----------
    record : BackboneRecord
    network : torch.nn.Module
        It is moved to the device and dtype and kept. :meth:`probe` must be called before any other method.
    weights : WeightsOrigin
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(
        self,
        record: BackboneRecord,
        network: Any,
        weights: WeightsOrigin,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.record, self.weights, self.device, self.dtype = record, weights, device, dtype
        self.network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self._fixed: tuple[int, int] | None = None
        self._has_norm = True

    def _has_class_token(self) -> bool:
        return getattr(self.network, "cls_token", None) is not None

    def _layers(
        self, pixels: torch.Tensor, layers: Sequence[int], facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        if facet == "token":
            return dict(zip(layers, self._intermediates(pixels, layers, norm=norm), strict=True))
        modules = {layer: self._attentions[layer].qkv for layer in layers}
        with outputs_of(modules) as outputs:
            self._intermediates(pixels, [layers[-1]], norm=False)
        part = _FACETS.index(facet)
        grid = self._grid(pixels)
        return {layer: to_grid(outputs[layer].chunk(3, dim=-1)[part], grid) for layer in layers}

    def _intermediates(
        self, pixels: torch.Tensor, layers: Sequence[int], *, norm: bool
    ) -> list[torch.Tensor]:
        if norm and not self._has_norm:
            raise ModelError(
                f"{self.record.name}: timm cannot apply this network's final norm to its layers; use them "
                "without it: final_norm=False"
            )
        shape = tuple(pixels.shape[-2:])
        if self._fixed and shape != self._fixed:
            raise ModelError(of_one_size(self.record.name, self._fixed, shape))
        with running(self.record.name, shape):
            found = self._forward(pixels, layers, norm=norm)
        return [to_grid(tokens, self._grid(pixels)) for tokens in found]

    def _forward(self, pixels: torch.Tensor, layers: Sequence[int], *, norm: bool) -> list[torch.Tensor]:
        found: list[torch.Tensor] = self.network.forward_intermediates(
            pixels,
            indices=list(layers),
            norm=norm,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return found

    def _grid(self, pixels: torch.Tensor) -> tuple[int, int]:
        patch = self.record.patch_size
        return pixels.shape[-2] // patch, pixels.shape[-1] // patch

    def _query_key(self, qkv: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor, float]:
        module = self._attentions[layer]
        batch, n, _ = qkv.shape
        query, key = qkv.view(batch, n, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)[:2]
        return module.q_norm(query), module.k_norm(key), float(module.scale)

    def _attention_row(self, pixels: torch.Tensor, layer: int, token: int) -> torch.Tensor:
        with outputs_of({layer: self._attentions[layer].qkv}) as outputs:
            self._intermediates(pixels, [layer], norm=False)
        query, key, scale = self._query_key(outputs[layer], layer)
        return attention_row(query, key, token, scale)

    def _rollout_row(self, pixels: torch.Tensor, token: int) -> torch.Tensor:
        modules = {layer: attention.qkv for layer, attention in enumerate(self._attentions)}
        with outputs_of(modules) as outputs:
            self._intermediates(pixels, [self.depth - 1], norm=False)
        row = torch.zeros(outputs[0].shape[:2], device=self.device)
        row[:, token] = 1.0
        for layer in reversed(range(self.depth)):
            row = roll_back(row, *self._query_key(outputs.pop(layer), layer))
        return row

    def probe(self) -> None:
        """Find the parts of the network, and run it once on a few patches.

        Raises
        ------
        ModelError
            If it cannot give its layers as grids of patches.
        """
        patch, record = self.record.patch_size, self.record
        self._attentions = _attentions(self.network)
        if len(self._attentions) == record.depth:
            self.facets = ("token", *_FACETS)
            self.has_attention = True
        sides = (2 * patch, 3 * patch)  # not square, so that a fixed size or a transposed grid shows
        with torch.no_grad():
            try:
                tokens = self._probed(sides)
            # The class of the error of a network that accepts only one size depends on its authors.
            except Exception as error:
                size = (getattr(self.network, "pretrained_cfg", None) or {}).get("input_size")
                if not size or size[1] % patch or size[2] % patch:
                    raise ModelError(f"{record.name}: {reason(error)}") from error
                self._fixed = sides = (size[1], size[2])
                try:
                    tokens = self._probed(sides)
                except Exception as second:
                    raise ModelError(f"{record.name}: {reason(second)}") from second
        grid = (sides[0] // patch, sides[1] // patch)
        if tuple(tokens.shape) != (1, *grid, record.width):
            raise ModelError(
                f"{record.name}: its last layer is not a grid of {grid} patches of width {record.width}, "
                f"got {tuple(tokens.shape)}"
            )

    def _probed(self, sides: tuple[int, int]) -> torch.Tensor:
        pixels = torch.zeros(1, 3, *sides, device=self.device, dtype=self.dtype)
        last = [self.depth - 1]
        # Some networks (Hiera) refuse the norm at any size, with different errors.
        try:
            found = self._forward(pixels, last, norm=True)
            self._has_norm = True
        except Exception:
            found = self._forward(pixels, last, norm=False)
            self._has_norm = False
        return to_grid(found[0], self._grid(pixels))


def _timm(name: str) -> Any:
    with _inside(name):
        import timm
    return timm


def _pretrained_cfg(name: str) -> Any:
    """The entry in timm for the weights of ``timm:NAME``; None if there is none."""
    timm = _timm(name)
    architecture = name.removeprefix(PREFIX)
    # With timm's own prefixes (hf-hub:, local-dir:), timm would read a configuration that may name any code in timm.
    if ":" in architecture or not timm.is_model(architecture):
        known = timm.list_models(pretrained=True) + timm.list_models()
        near = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(PREFIX + n for n in near)}?"
            if near
            else "timm.list_models() lists all models"
        )
        raise ModelError(f"unknown model {name!r}: {hint}")
    try:
        return timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:
        base, _, tag = architecture.partition(".")
        known = ", ".join(n.partition(".")[2] for n in timm.list_pretrained(f"{base}.*"))
        raise ModelError(
            f"unknown model {name!r}: timm has {base} with {known or 'no weights'}, not with {tag}"
        ) from error


def _found(name: str, state: dict[str, torch.Tensor]) -> FoundNetwork:
    """The network in a user's file. Its classifier, on which no patch depends, is replaced by zeros of the shape that
    timm expects.

    If no name fits, the tensors are returned as they are, because timm may know their names.
    """
    with torch.device("meta"):
        network = _create(name, None)
    wanted = network.state_dict()
    found = find_network(state, wanted)
    if not any(key in wanted for key in found.state):
        return FoundNetwork(state, "", ())
    classifier = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    owners = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    kept = {
        key: each for key, each in found.state.items() if not key.startswith(tuple(f"{o}." for o in owners))
    }
    kept |= {
        key: torch.zeros(each.shape)
        for key, each in wanted.items()
        if key.startswith(tuple(f"{owner}." for owner in owners))
    }
    return replace(found, state=kept)


def _create(name: str, state: dict[str, torch.Tensor] | None) -> Any:
    """The network of ``timm:NAME`` with these weights; with its initial weights if ``state`` is None."""
    timm = _timm(name)
    _pretrained_cfg(name)
    architecture = name.removeprefix(PREFIX)
    options: dict[str, Any] = {"pretrained": state is not None}
    if state is not None:
        # timm's own loading, which knows the names in older files. It is strict because the head is kept.
        options["pretrained_cfg_overlay"] = {"state_dict": state, "custom_load": False}
    try:
        try:
            network = timm.create_model(architecture, dynamic_img_size=True, **options)
        except TypeError:  # this architecture has no such option, but may accept other sizes without it
            network = timm.create_model(architecture, **options)
    except ImportError:
        raise
    except Exception as error:
        if state is None:
            raise ModelError(f"{name}: timm cannot build it ({reason(error)})") from error
        words = " ".join(str(error).split())[:300]
        raise WeightsError(f"{name}: the weights are not this model's ({words})") from error
    broken = [n for n, tensor in network.named_parameters() if state and not bool(tensor.isfinite().all())]
    if broken:
        raise WeightsError(f"{name}: tensors not finite: {', '.join(broken[:3])}")
    if isinstance(getattr(network, "pretrained_cfg", None), dict):
        network.pretrained_cfg.pop("state_dict", None)  # it would keep a second copy alive
    return network


def _record(name: str, network: Any) -> BackboneRecord:
    forward = getattr(network, "forward_intermediates", None)
    wanted = {"indices", "norm", "stop_early", "output_fmt", "intermediates_only"}
    if forward is None or not wanted <= set(inspect.signature(forward).parameters):
        raise ModelError(f"{name}: timm cannot give this network's layers (forward_intermediates)")
    info = network.feature_info
    info = info.info if hasattr(info, "info") else info
    cfg = network.pretrained_cfg
    mean, std = tuple(cfg.get("mean") or ()), tuple(cfg.get("std") or ())
    known = len(mean) == len(std) == 3 and all(map(math.isfinite, mean)) and min(std) > 0
    attentions = _attentions(network)
    return BackboneRecord(
        name=name,
        family="timm",
        patch_size=int(info[-1]["reduction"]),
        width=int(info[-1]["num_chs"]),
        depth=len(info),
        heads=int(attentions[0].num_heads) if attentions else 0,
        prefix_tokens=int(getattr(network, "num_prefix_tokens", 0)),
        mean=cast("tuple[float, float, float]", tuple(float(v) for v in mean)) if known else None,
        std=cast("tuple[float, float, float]", tuple(float(v) for v in std)) if known else None,
        n_parameters=sum(parameter.numel() for parameter in network.parameters()),
        licence=cfg.get("license") or "see the model's card",
        source=cfg.get("hf_hub_id") or cfg.get("url") or "timm",
        hub_repo=cfg.get("hf_hub_id") or "",
    )


def _attentions(network: Any) -> list[Any]:
    """The attention of each block; empty unless all are timm's plain one: one layer for query, key and value, no
    rotation.
    """
    from timm.layers.attention import Attention

    blocks = getattr(network, "blocks", None)
    found = [getattr(block, "attn", None) for block in blocks] if blocks is not None else []
    return found if found and all(type(attention) is Attention for attention in found) else []
