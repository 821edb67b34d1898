"""A linear layer with its weights in the memory layout of oneDNN's matrix product."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from patchprism.support.threads import few_threads

if TYPE_CHECKING:
    from collections.abc import Callable

Activation = Literal["none", "gelu"]

_PACKED_DTYPES = (torch.float32, torch.bfloat16)


class Linear(nn.Linear):
    """``nn.Linear``, optionally followed by an exact GELU, whose weights can be packed for oneDNN.

    With packed weights, the forward pass of ViT-S/14 takes 0.87 of the time. oneDNN's packed product can only be
    reached through operators that torch provides for its own compiler. Without them, on other processors than x86 and
    for other dtypes than float32 and bfloat16, this is the usual layer.
    """

    def forward(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        """(..., in) -> (..., out)."""
        if self.weight.is_mkldnn:
            y = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], "none")
            return cast("torch.Tensor", y)
        y = super().forward(x)
        return F.gelu(y) if activation == "gelu" else y

    def pack(self) -> None:
        """Convert the weights to oneDNN's layout. They replace the usual ones, so this takes no additional memory."""
        packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def _dense(self) -> nn.Parameter:
        """The weights in the usual layout."""
        return nn.Parameter(self.weight.detach().to_dense(), requires_grad=False)

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights can be neither copied nor pickled, so a copy of the layer has the usual ones.
        state = self.__dict__.copy()
        if self.weight.is_mkldnn:
            state["_parameters"] = {**self._parameters, "weight": self._dense()}
        return state

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Linear:
        # Packed weights cannot be moved to another device or dtype.
        if self.weight.is_mkldnn:
            self.weight = self._dense()
        return cast("Linear", super()._apply(fn, recurse))  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # state_dict() contains the usual layout, even if the weights are packed.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight.is_mkldnn:
            destination[prefix + "weight"] = self.weight.detach().to_dense()


def pack_linears(network: nn.Module) -> bool:
    """Pack every :class:`Linear` of a network, if possible.

    Parameters
    ----------
    network : nn.Module
        With its weights, on its final device and in its final dtype: copying or moving it restores the usual layout.

    Returns
    -------
    bool
        Whether the layers are packed. This needs float32 or bfloat16, an x86 processor, and a torch with the operators.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, Linear)]
    if not all(_can_pack(layer) for layer in layers):
        return False
    with few_threads(sum(layer.weight.numel() for layer in layers)):
        if not all(_operators_work(dtype) for dtype in {layer.weight.dtype for layer in layers}):
            return False
        for layer in layers:
            layer.pack()
    return True


def _can_pack(layer: Linear) -> bool:
    weight = layer.weight
    return weight.device.type == "cpu" and weight.dtype in _PACKED_DTYPES and weight.layout == torch.strided


def _operators_work(dtype: torch.dtype = torch.float32) -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not torch.backends.mkldnn.enabled:
        return False
    probe = Linear(2, 2, dtype=dtype)
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        probe.pack()
        probe(torch.zeros(1, 2, dtype=dtype), "gelu")
    # These operators are not part of torch's public interface. If another version of torch fails, the usual layer is
    # used.
    except Exception:
        return False
    return True
