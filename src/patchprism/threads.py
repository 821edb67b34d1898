"""Threads that work beside the network, and leave it the cores."""

from __future__ import annotations

from functools import cache
from typing import Any


def leave_the_cores() -> None:
    """Let torch's operators use no more than the calling thread from now on, in this thread alone.

    OpenMP gives every thread that calls it threads of its own, as many as there are cores, and these wait by
    spinning. Readers that frame photos beside the network then take the cores from it: on two of them, frames
    at 448 cost 20 to 30 % more processor time around the network (docs/video.md).
    """
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first call
    _openmp().limit(limits=1)


@cache
def _openmp() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp")
