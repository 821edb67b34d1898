"""Networks that ``transformers`` can read, as backbones.

There is no table of architectures. The parts of a network are found by running it once on a few patches, and a
network is refused unless its hidden states are patches after known prefix tokens.
Shapes in comments: B photos, N tokens (prefix and patches), D width, h x w the grid of patches.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from patchprism.backbones.attention import attention_row, roll_back
from patchprism.backbones.base import Backbone
from patchprism.backbones.devices import resolve_device, resolve_dtype
from patchprism.backbones.hub_files import PREPROCESSOR_FILES, open_model
from patchprism.backbones.probing import inside, of_one_size, outputs_of, reason, running, to_grid
from patchprism.errors import ModelError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from patchprism.backbones.record import BackboneRecord, Progress, WeightsOrigin

    # Query and key, each (B, heads, N, d), the factor before the softmax, and whether the softmax depends on nothing
    # else.
    Recorder = Callable[[torch.Tensor, torch.Tensor, float, bool], None]

_PROJECTIONS = {"query": ("query", "q_proj"), "key": ("key", "k_proj"), "value": ("value", "v_proj")}
_ATTENTION_NAME = "patchprism"

_recorder: ContextVar[Recorder | None] = ContextVar("patchprism_attention_recorder", default=None)


def find_record(name: str) -> BackboneRecord:
    """The record of ``hf:REPO_OR_DIR[@REVISION]``, from its configuration alone.

    Raises
    ------
    ModelError
        If it is not a network that can be used, or a file of it is missing; the message says which.
    WeightsError
        If it cannot be fetched.
    ExtraError
        If ``transformers`` is not installed.
    """
    _transformers(name)
    model = open_model(name)
    with _inside(name):
        from patchprism.backbones.transformers_files import read_config, record_of

        return record_of(model, read_config(model))


def load(
    name: str, *, weights: str | None, device: str, dtype: str, progress: Progress | None, download: bool
) -> HuggingFaceBackbone:
    """The backbone of ``hf:REPO_OR_DIR[@REVISION]``.

    Raises
    ------
    ModelError, WeightsError, ExtraError
        As :func:`find_record`.
    OptionError
        If other weights are asked for.
    """
    if weights is not None:
        raise OptionError(
            f"weights cannot be given with {name!r}, which has its own; give the folder of other weights "
            "as hf:FOLDER"
        )
    _transformers(name)
    model = open_model(name, download=download)
    with _inside(name):
        from patchprism.backbones.transformers_files import read_config, read_network, record_of

        config = read_config(model)
        record = record_of(model, config)
        torch_device, torch_dtype = resolve_device(device), resolve_dtype(dtype)
        origin = model.weights(progress)
        network = read_network(model, config, origin)
        backbone = HuggingFaceBackbone(record, network, origin, torch_device, torch_dtype)
        backbone.probe()
        return backbone


class HuggingFaceBackbone(Backbone):
    """A network of ``transformers`` with its weights.

    Parameters
    ----------
    record : BackboneRecord
    network : transformers.PreTrainedModel
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
        self._grid = (0, 0)
        self._fixed: tuple[int, int] | None = None
        self._norm: nn.Module | None = None
        self._norm_known = True

    def _has_class_token(self) -> bool:
        return self._class_token

    def _layers(
        self, pixels: torch.Tensor, layers: Sequence[int], facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        last = self.depth - 1
        if facet != "token":
            modules = {layer: self._projections[layer][facet] for layer in layers}
        else:
            modules = {layer: self._blocks[layer] for layer in layers if layer != last or not norm}
        if norm and facet == "token" and modules and not self._norm_known:
            raise ModelError(
                f"{self.record.name}: its final norm was not found, so earlier layers can only be used "
                "without it (final_norm=False)"
            )
        with outputs_of(modules) as outputs:
            final = self._run(pixels)
        found: dict[int, torch.Tensor] = {}
        for layer in layers:
            if layer not in modules:
                found[layer] = self._patches(final, pixels)
            else:
                tokens = outputs[layer]
                if norm and facet == "token" and self._norm is not None:
                    tokens = self._norm(tokens)
                found[layer] = self._patches(tokens, pixels)
        return found

    def _attention_row(self, pixels: torch.Tensor, layer: int, token: int) -> torch.Tensor:
        rows: list[torch.Tensor] = []
        calls = iter(range(self.depth))

        def record(query: torch.Tensor, key: torch.Tensor, scale: float, _: bool) -> None:
            if next(calls) == layer:
                rows.append(attention_row(query, key, token, scale))

        with _recording(record):
            self._run(pixels)
        return rows[0]

    def _rollout_row(self, pixels: torch.Tensor, token: int) -> torch.Tensor:
        layers: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        with _recording(lambda query, key, scale, _: layers.append((query, key, scale))):
            self._run(pixels)
        query = layers[-1][0]
        row = query.new_zeros(query.shape[0], query.shape[2], dtype=query.float().dtype)
        row[:, token] = 1.0
        while layers:
            row = roll_back(row, *layers.pop())
        return row

    def _run(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> what the network calls its last hidden state."""
        shape = tuple(pixels.shape[-2:])
        if self._fixed and shape != self._fixed:
            raise ModelError(of_one_size(self.record.name, self._fixed, shape))
        with running(self.record.name, shape):
            return self._forward(pixels)

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        shape, patch = tuple(pixels.shape[-2:]), self.record.patch_size
        h, w = self._grid = shape[0] // patch, shape[1] // patch
        inputs: dict[str, Any] = {"pixel_values": pixels}
        if "spatial_shapes" in self._options:
            # The flexible variant of SigLIP 2 takes patches, each row by row with its channels last.
            patches = pixels.reshape(len(pixels), 3, h, patch, w, patch).permute(0, 2, 4, 3, 5, 1)
            inputs = {
                "pixel_values": patches.reshape(len(pixels), h * w, -1),
                "pixel_attention_mask": torch.ones(
                    len(pixels), h * w, dtype=torch.long, device=pixels.device
                ),
                "spatial_shapes": torch.tensor([[h, w]] * len(pixels)),
            }
        if "interpolate_pos_encoding" in self._options:
            inputs["interpolate_pos_encoding"] = self._fixed is None
        if "noise" in self._options:
            # A masked autoencoder shuffles patches by sorting noise: ascending noise leaves them in order.
            order = torch.arange(h * w, dtype=torch.float32, device=pixels.device)
            inputs["noise"] = order.expand(len(pixels), -1)
        return cast("torch.Tensor", self.network(**inputs).last_hidden_state)

    def _stretch_positions(self) -> None:
        """Interpolate a learned table of a square grid's positions, if the network does not do it itself (AIMv2).

        The interpolation is bicubic, as in the networks for which transformers does it.
        """
        size = getattr(self.network.config, "image_size", None)
        side = size // self.record.patch_size if isinstance(size, int) else 0

        def stretched(_: nn.Module, __: Any, table: torch.Tensor) -> torch.Tensor:
            if self._grid == (side, side) or table.ndim != 3 or table.shape[1] != side * side:
                return table
            image = table.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, side, side)
            image = F.interpolate(image, size=self._grid, mode="bicubic", align_corners=False)
            return image.flatten(2).transpose(1, 2).to(table.dtype)

        for name, module in self.network.named_modules():
            is_table = isinstance(module, nn.Embedding) and module.num_embeddings == side * side
            if is_table and name.rsplit(".", 1)[-1].startswith("position_embedding"):
                module.register_forward_hook(stretched)

    def _patches(self, tokens: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        patch = self.record.patch_size
        return to_grid(tokens, (pixels.shape[-2] // patch, pixels.shape[-1] // patch))

    def probe(self) -> None:
        """Find the parts of the network, and run it once on a few patches.

        Raises
        ------
        ModelError
            If its hidden states are not patches after known prefix tokens.
        """
        from patchprism.backbones.transformers_files import STAGED, has_class_token

        config = self.network.config
        self._staged = config.model_type in STAGED
        self._options = inspect.signature(type(self.network).forward).parameters
        self._class_token = has_class_token(self.network)
        if "mask_ratio" in config.to_dict():
            config.mask_ratio = 0.0  # a masked autoencoder must see every patch
        self._blocks = _find_blocks(self.record, self.network, self._staged)
        self._projections = _find_projections(self._blocks)
        if self._projections:
            self.facets = ("token", "query", "key", "value")
        if "interpolate_pos_encoding" not in self._options:
            self._stretch_positions()
        self._run_once()

    def _run_once(self) -> None:
        patch = self.record.patch_size
        sides = (2 * patch, 3 * patch)  # not square, so that a fixed size or a transposed grid shows

        def probe() -> torch.Tensor:
            generator = torch.Generator().manual_seed(0)
            pixels = torch.randn(1, 3, *sides, generator=generator)
            return pixels.to(device=self.device, dtype=self.dtype)

        norms = dict(enumerate(self._outer_norms()))
        with torch.no_grad():
            last = {-1: self._blocks[-1]}
            try:
                with outputs_of({**last, **norms}, inputs=norms) as seen:
                    final = self._forward(probe())
            # The class of the error of a network that accepts only one size depends on its authors.
            except Exception as error:
                size = getattr(self.network.config, "image_size", None)
                if not size:
                    raise ModelError(f"{self.record.name}: {reason(error)}") from error
                self._fixed = sides = (size, size) if isinstance(size, int) else (size[0], size[1])
                try:
                    with outputs_of({**last, **norms}, inputs=norms) as seen:
                        final = self._forward(probe())
                except Exception as second:
                    raise ModelError(f"{self.record.name}: {reason(second)}") from second
            if -1 not in seen:
                raise ModelError(f"{self.record.name}: its last block was not run")
            n_patches = (sides[0] // patch) * (sides[1] // patch)
            self._check_shapes(final, seen[-1], n_patches)
            if not self._staged:
                self._find_norm(final, seen, norms)
            self._find_attention(probe(), final)

    def _outer_norms(self) -> list[nn.Module]:
        """Norms outside the blocks."""
        inner = {id(module) for block in self._blocks for module in block.modules()}
        return [
            module
            for module in self.network.modules()
            if id(module) not in inner and "norm" in type(module).__name__.lower()
        ]

    def _check_shapes(self, final: torch.Tensor, block: torch.Tensor, n_patches: int) -> None:
        record = self.record
        if final.ndim == 4:
            got = final.shape[-2] * final.shape[-1]
            extra = got - n_patches
            known = 0
        else:
            extra = final.shape[1] - n_patches
            # DINOv3's ConvNeXt puts the mean of the patches before the patches.
            known = 1 if self._staged else record.prefix_tokens
        if final.ndim not in (3, 4) or extra != known or (not self._staged and block.shape != final.shape):
            raise ModelError(
                f"{record.name}: its hidden states are not {n_patches} patches after {known} prefix tokens, "
                f"got {tuple(final.shape)}"
            )

    def _find_norm(self, final: torch.Tensor, seen: dict[Any, Any], norms: dict[int, nn.Module]) -> None:
        block = seen[-1]
        for i, module in norms.items():
            given = seen.get(("input", i))
            follows = given is not None and given.shape == block.shape and torch.equal(given, block)
            if follows and torch.equal(seen[i], final):
                self._norm = module
                return
        self._norm_known = bool(torch.equal(block, final))

    def _find_attention(self, pixels: torch.Tensor, final: torch.Tensor) -> None:
        """Intercept the attention of the network, if it supports that."""
        if self._staged or not hasattr(self.network, "set_attn_implementation"):
            return
        _register_attention()
        before = self.network.config._attn_implementation
        shapes: list[tuple[int, ...]] = []

        def record(query: torch.Tensor, key: torch.Tensor, scale: float, plain: bool) -> None:
            shapes.append(tuple(query.shape) if plain and query.shape == key.shape else ())

        try:
            self.network.set_attn_implementation(_ATTENTION_NAME)
            with _recording(record):
                ours = self._forward(pixels)
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, NotImplementedError):
            self.network.set_attn_implementation(before)
            return
        # Two kernels may round differently, but no more than that.
        same = torch.allclose(ours.float(), final.float(), rtol=1e-2, atol=1e-2)
        wanted = [(1, self.record.heads, final.shape[1])] * self.depth
        self.has_attention = same and [shape[:3] for shape in shapes] == wanted
        if not self.has_attention:
            self.network.set_attn_implementation(before)


def fetch(name: str, progress: Progress | None = None) -> WeightsOrigin:
    """Fetch all files of ``hf:REPO_OR_DIR[@REVISION]``, so that it can be used without a network.

    Raises
    ------
    ModelError, WeightsError
        As :func:`find_record`.
    """
    model = open_model(name)
    for file in PREPROCESSOR_FILES:
        model.file(file)
    return model.weights(progress)


def _transformers(name: str) -> None:
    with _inside(name):
        import transformers  # noqa: F401


def _inside(name: str) -> AbstractContextManager[None]:
    return inside(name, "transformers", "hf")


def _find_blocks(record: BackboneRecord, network: Any, staged: bool) -> list[nn.Module]:
    for name, module in network.named_modules():
        is_list = isinstance(module, nn.ModuleList) and len(module) == record.depth
        if is_list and "decoder" not in name and (not staged or name.endswith("stages")):
            return list(module)
    raise ModelError(f"{record.name}: its {record.depth} {'stages' if staged else 'blocks'} were not found")


def _find_projections(blocks: Sequence[nn.Module]) -> list[dict[str, nn.Module]]:
    """Query, key and value layers of each block; empty unless every block has exactly one of each."""
    found = []
    for block in blocks:
        of_block: dict[str, nn.Module] = {}
        for facet, names in _PROJECTIONS.items():
            modules = [
                module
                for name, module in block.named_modules()
                if name.rsplit(".", 1)[-1] in names and isinstance(module, nn.Linear)
            ]
            if len(modules) != 1:
                return []
            of_block[facet] = modules[0]
        found.append(of_block)
    return found


@contextmanager
def _recording(recorder: Recorder) -> Iterator[None]:
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


def _register_attention() -> None:
    """Register our attention with transformers: PyTorch's, which also passes query and key to the recorder."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def attention(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
    ) -> Any:
        recorder = _recorder.get()
        if recorder is not None:
            scale = options.get("scaling")
            # With a mask, or a position bias (BEiT), attention depends on more than query and key.
            plain = mask is None or (not mask.is_floating_point() and bool(mask.all()))
            recorder(query, key, float(query.shape[-1] ** -0.5 if scale is None else scale), plain)
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    AttentionInterface.register(_ATTENTION_NAME, attention)
    AttentionMaskInterface.register(_ATTENTION_NAME, sdpa_mask)
