"""Replace settings of torch that the calling program may have changed, while we compute."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Devices on which autocast may be on; our networks run on no others.
_KINDS = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def own_settings() -> Iterator[None]:
    """Compute with fixed settings of torch, whatever the calling program has set, and restore them afterwards.

    No gradients are recorded. Inference mode is off, because tensors that are made in it cannot be used for training.
    Autocast is off, the default dtype is float32, the default device is the CPU, and float32 products are not
    computed with fewer bits (TF32, bfloat16). In torch, the default dtype and the precision of products are shared by
    all threads of a process.
    """
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in _KINDS:
            if _is_autocast(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        dtype = torch.get_default_dtype()
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        _exact_products(stack)
        yield


def _is_autocast(kind: str) -> bool:
    import torch

    try:
        return torch.is_autocast_enabled(kind)
    except TypeError:  # before torch 2.4
        return bool(
            {"cpu": torch.is_autocast_cpu_enabled, "cuda": torch.is_autocast_enabled}.get(kind, bool)()
        )


def _exact_products(stack: ExitStack) -> None:
    import torch

    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):  # before torch 2.9
        if torch.get_float32_matmul_precision() != "highest":
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        if backends.cudnn.allow_tf32:
            stack.callback(setattr, backends.cudnn, "allow_tf32", True)
            backends.cudnn.allow_tf32 = False
        return
    # The older functions raise errors if a program has used the newer ones.
    for place in (backends.mkldnn.matmul, backends.mkldnn.conv, backends.cuda.matmul, backends.cudnn.conv):
        if place.fp32_precision not in ("ieee", "none"):
            stack.callback(_restore, place, place.fp32_precision)
            place.fp32_precision = "ieee"


def _restore(place: Any, precision: str) -> None:
    # A value that was inherited from the setting for all backends is inherited again, rather than set.
    place.fp32_precision = "none"
    if place.fp32_precision != precision:
        place.fp32_precision = precision
