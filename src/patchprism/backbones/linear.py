"""A linear layer with its weights in the memory layout that oneDNN multiplies with."""

from __future__ import annotations

import platform
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from patchprism.support.threads import few_threads

Activation = Literal["none", "gelu"]

_PACKED_DTYPES = (torch.float32, torch.bfloat16)


class Linear(nn.Linear):
    """``nn.Linear`` with an exact GELU after it if asked; on x86 processors, in float32 and bfloat16, it can be packed.

    Packed, the whole forward of ViT-S/14 takes 0.87 of the time here. Only operators that
    torch itself keeps for its compiler reach oneDNN's packed product, so that a torch without them, other
    processors and other dtypes go the usual way.
    """

    def forward(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        """(..., in) -> (..., out)."""
        if self.weight.is_mkldnn:
            y = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], "none")
            return cast("torch.Tensor", y)
        y = super().forward(x)
        return F.gelu(y) if activation == "gelu" else y

    def pack(self) -> None:
        """Put the weights into oneDNN's order, in place of the usual one: no memory more is taken."""
        packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # state_dict() gives what load_state_dict() takes, packed or not.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight.is_mkldnn:
            destination[prefix + "weight"] = self.weight.detach().to_dense()


def pack_linears(network: nn.Module) -> bool:
    """Pack every :class:`Linear` of a network where that can be done.

    Parameters
    ----------
    network : nn.Module
        With weights, on its device, in its dtype. It can be neither moved nor copied afterwards.

    Returns
    -------
    bool
        Whether it was done: float32 or bfloat16, on an x86 processor, with a torch that has the operators.
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
