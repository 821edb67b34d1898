"""The base class of backbones. Importing it does not load torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from patchprism.backbones.devices import resolve_device, resolve_dtype
from patchprism.backbones.record import BackboneRecord, Identity, WeightsOrigin
from patchprism.errors import ModelError, OptionError
from patchprism.support import checks
from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from patchprism.photos.framing import Framing

Query = Literal["cls"] | tuple[int, int]


class Backbone(ABC):
    """A frozen network that turns pixels into patch tokens.

    Attributes
    ----------
    record : BackboneRecord
    weights : WeightsOrigin
    device : torch.device
    dtype : torch.dtype
        Precision of the network. Tokens are always float32.
    """

    record: BackboneRecord
    weights: WeightsOrigin
    device: torch.device
    dtype: torch.dtype

    facets: tuple[str, ...] = ("token",)
    """Outputs that a layer provides: its tokens (``"token"``), or the query, key or value of its attention."""

    has_attention: bool = False
    """Whether :meth:`attention` and :meth:`rollout` work."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record.name}, {self.device}, {self.identity.dtype})"

    @property
    def identity(self) -> Identity:
        """Values that distinguish its tokens from those of other networks."""
        dtype = str(self.dtype).removeprefix("torch.")
        return Identity(record=self.record, weights=self.weights, dtype=dtype)

    @property
    def depth(self) -> int:
        """Number of layers."""
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
        """Make a backbone from your own function.

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
            Name of the network in reports and prisms. Prisms recognise the network by it.
        width : int, optional
            Length D of a token. If given, it is checked; by default the first call sets it.
        device, dtype : str
            Device and precision of the pixels that ``fn`` gets.

        Raises
        ------
        OptionError
            If an argument has a value that is not allowed.
        """
        if not callable(fn):
            raise OptionError(f"fn must be callable, got {type(fn).__name__}")
        count = partial(checks.integer, low=1, high=checks.MAX_COUNT)
        record = BackboneRecord(
            name=checks.text("name", name),
            family="callable",
            patch_size=count("patch_size", patch_size),
            width=checks.optional(count)("width", width) or 0,
            depth=1,
            heads=0,
            prefix_tokens=0,
            mean=checks.three_numbers("mean", mean),
            std=checks.three_numbers("std", std, positive=True),
            n_parameters=0,
            licence="",
            source="a function",
        )
        weights = WeightsOrigin(source=f"the function {getattr(fn, '__qualname__', type(fn).__name__)}")
        return CallableBackbone(fn, record, weights, resolve_device(device), resolve_dtype(dtype))

    def framing(
        self,
        *,
        size: int | None = None,
        preset: str = "default",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        stride: int | None = None,
    ) -> Framing:
        """How photos are resized, cropped and normalised for this network.

        Parameters and errors are those of :meth:`BackboneRecord.framing`. An OptionError is also raised if a stride
        is given and the patches of this network cannot overlap.

        Examples
        --------
        >>> import numpy as np
        >>> from patchprism import load_backbone
        >>> backbone = load_backbone("efficientnet_lite2")
        >>> framed = backbone.framing(size=64).apply(np.zeros((200, 300, 3), np.uint8))
        >>> backbone.patch_tokens(framed.pixels[None]).shape
        torch.Size([1, 4, 6, 536])
        """
        framing = self.record.framing(size=size, preset=preset, mean=mean, std=std, stride=stride)
        self.check_overlap(framing)
        return framing

    def check_overlap(self, framing: Framing) -> None:
        """Refuse overlapping patches if the first layer does not process each patch separately.

        Raises
        ------
        OptionError
            If the framing has a stride, and the network has no such first layer, or accepts only one image size.
        """
        if framing.stride is None:
            return
        import torch

        network, side = getattr(self, "network", None), (self.record.patch_size,) * 2
        layers = network.modules() if isinstance(network, torch.nn.Module) else ()
        plain = (
            isinstance(each, torch.nn.Conv2d)
            and each.in_channels == 3
            and each.kernel_size == each.stride == side
            for each in layers
        )
        if getattr(self, "_fixed", None) or not any(plain):
            raise OptionError(
                f"stride cannot be used with {self.record.name}: overlapping patches need a vision "
                "transformer that takes photos of any size and whose first layer reads each patch separately",
                option="stride",
            )

    def patch_tokens(
        self, pixels: torch.Tensor, *, layer: int | None = None, facet: str = "token", norm: bool = True
    ) -> torch.Tensor:
        """Patch tokens of a batch of framed photos.

        Parameters
        ----------
        pixels : torch.Tensor, shape (B, 3, H, W)
            Normalised model input on any device; H and W multiples of the patch size.
        layer, facet, norm
            As in :meth:`layer_tokens`. By default these are the patch tokens of the last layer, or of the layer that
            the record names.

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
        layer = self.record.layer if layer is None else layer
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
            Blocks, counted from 0; negative numbers count from the end, and -1 is the last block.
        facet : str
            One of ``facets``: ``"token"`` is the layer's output; ``"query"``, ``"key"`` and ``"value"`` are the
            linear projections inside its attention, with all heads concatenated, before any rotation by position.
        norm : bool
            Whether the network's final norm is applied to the tokens, including those of earlier layers. It has no
            effect on the other facets, and in networks without a final norm.

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
        with own_settings():
            found = self._layers(
                pixels.to(device=self.device, dtype=self._pixels_dtype), sorted(set(wanted)), facet, norm
            )
            tokens = [found[layer].float() for layer in wanted]
            # A user's function may run in inference mode, whose tensors cannot be used for training.
            return [each.clone() if each.is_inference() else each.detach() for each in tokens]

    def layer_index(self, layer: int) -> int:
        """The layer's number, counted from 0; refuses a layer that the network does not have."""
        return self.record.layer_index(layer)

    def attention(self, pixels: torch.Tensor, *, layer: int = -1, query: Query = "cls") -> torch.Tensor:
        """How much one token attends to each patch, for every head.

        Only the requested row is computed, so memory grows with the number of patches, not with its square.

        Parameters
        ----------
        pixels : torch.Tensor, shape (B, 3, H, W)
            As in :meth:`patch_tokens`.
        layer : int
            Block whose attention is returned, counted as in :meth:`layer_tokens`.
        query : "cls" or tuple of two int
            The token that attends: the class token, or the patch in this (row, column) of the grid.

        Returns
        -------
        torch.Tensor, shape (B, heads, H / patch, W / patch), float32
            Softmax weights. Attention to the class token and to registers is left out, so the weights of a head add
            up to at most 1.

        Raises
        ------
        OptionError
            If the pixels' shape is wrong, or the patch lies outside the grid.
        ModelError
            If the network does not provide its attention, or has no such layer or no class token.
        """
        token, grid = self._attending(pixels, query)
        index = self.layer_index(layer)
        with own_settings():
            rows = self._attention_row(pixels.to(device=self.device, dtype=self.dtype), index, token)
        patches = rows[:, :, self.record.prefix_tokens :]
        return patches.reshape(*patches.shape[:2], *grid)

    def rollout(self, pixels: torch.Tensor, query: Query = "cls") -> torch.Tensor:
        """Attention rollout: how much of one token's output comes from each patch, through all layers.

        Each layer has the matrix ``0.5 * mean over heads + 0.5 * identity``, and the result is one row of the product
        of all matrices. This row is propagated from the last layer to the first, so the product itself is never
        computed.

        Parameters
        ----------
        pixels, query
            As in :meth:`attention`.

        Returns
        -------
        torch.Tensor, shape (B, H / patch, W / patch), float32
            Shares between 0 and 1. Shares of the class token and of registers are left out.

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
        with own_settings():
            # One photo at a time, because the inputs of all layers are held until the row has passed through them.
            rows = [
                self._rollout_row(pixels[i : i + 1].to(device=self.device, dtype=self.dtype), token)
                for i in range(len(pixels))
            ]
        return torch.cat(rows)[:, self.record.prefix_tokens :].reshape(len(pixels), *grid)

    def _attending(self, pixels: torch.Tensor, query: Query) -> tuple[int, tuple[int, int]]:
        """Index of the query's token in the sequence, and the grid; refuses a query that the network cannot answer."""
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
                f"query {checks.short_repr((row, column))} lies outside the grid of {h} rows and {w} columns"
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

    @property
    def _pixels_dtype(self) -> torch.dtype:
        """The dtype of the pixels that :meth:`_layers` receives."""
        return self.dtype

    @abstractmethod
    def _layers(
        self, pixels: torch.Tensor, layers: Sequence[int], facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        """(B, 3, H, W) in ``_pixels_dtype`` -> (B, h, w, D) of each layer; ``layers`` are valid and ascending."""

    def _attention_row(self, pixels: torch.Tensor, layer: int, token: int) -> torch.Tensor:
        """(B, heads, N) float32: one token's attention to all tokens; only called if ``has_attention``."""
        raise NotImplementedError

    def _rollout_row(self, pixels: torch.Tensor, token: int) -> torch.Tensor:
        """(B, N) float32: one token's row of the rollout; only called if ``has_attention``."""
        raise NotImplementedError


class CallableBackbone(Backbone):
    """A user's function that turns pixels into patch tokens. Its result is its only layer.

    Parameters
    ----------
    fn : callable
        As in :meth:`Backbone.from_callable`.
    record : BackboneRecord
        Its width is 0 until it is known.
    weights : WeightsOrigin
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(
        self,
        fn: Callable[[torch.Tensor], torch.Tensor],
        record: BackboneRecord,
        weights: WeightsOrigin,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.record, self.weights, self.device, self.dtype = record, weights, device, dtype
        self.fn = fn

    def _layers(
        self, pixels: torch.Tensor, layers: Sequence[int], facet: str, norm: bool
    ) -> dict[int, torch.Tensor]:
        import torch

        tokens = self.fn(pixels)
        batch, patch = len(pixels), self.record.patch_size
        h, w = (side // patch for side in pixels.shape[-2:])
        wanted = f"(B, h, w, D) = ({batch}, {h}, {w}, D) or (B, h * w, D) = ({batch}, {h * w}, D)"
        if not isinstance(tokens, torch.Tensor):
            raise ModelError(
                f"{self.record.name}: must return a tensor {wanted}, got {type(tokens).__name__}"
            )
        shape = tuple(tokens.shape)
        if len(shape) == 3 and shape[:2] == (batch, h * w):
            tokens = tokens.reshape(batch, h, w, -1)
        elif len(shape) != 4 or shape[:3] != (batch, h, w):
            hint = ""
            if len(shape) == 4 and shape[2:] == (h, w):
                hint = "; a network that puts channels first needs .permute(0, 2, 3, 1)"
            elif len(shape) == 3 and shape[0] == batch and shape[1] > h * w:
                hint = f"; drop the {shape[1] - h * w} prefix tokens"
            raise ModelError(f"{self.record.name}: must return {wanted}, got {shape}{hint}")
        width = tokens.shape[-1]
        if not tokens.is_floating_point():
            raise ModelError(f"{self.record.name}: tokens must be floating point, got {tokens.dtype}")
        if width == 0 or (self.record.width and width != self.record.width):
            raise ModelError(
                f"{self.record.name}: tokens must have width {self.record.width or 'D'}, got {width}"
            )
        if not self.record.width:
            self.record = replace(self.record, width=width)
        return {0: tokens.to(self.device)}
