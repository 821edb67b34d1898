"""Threads of the libraries below: where more of them cost more than they bring."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cache
from typing import Any

# Rounds. libgomp's own choice is 300,000 while it knows of no more threads than cores, of other processes it never
# knows; else 1,000.
_SPINS = "3000"
_MANY_NUMBERS = 100_000_000


def spin_less() -> None:
    """Have OpenMP's threads sleep sooner where they wait for each other; for processes that are our own.

    By default they spin for milliseconds, which takes the cores from whatever else runs, another such process
    first of all, that they wait for. What the user has set is kept. To be called before torch is imported:
    libgomp, which torch has on Linux, looks once.

    Measured with efficientnet_lite2 at 448 on two cores: docs/scaling.md, "Busy machines".
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def leave_the_cores() -> None:
    """Let torch's operators use no more than the calling thread from now on, in this thread alone.

    For threads that work beside the network. OpenMP gives every thread that calls it threads of its own, as
    many as there are cores, and these wait by spinning: they take the cores from the network.
    """
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first call
    _controller("openmp").limit(limits=1)


def few_threads(numbers: int) -> Any:
    """A context manager for light work on each of many tensors: torch's operators keep to one thread here.

    The threads of a short loop wait for each other longer than they work. Checking and packing the 85 tensors of a
    ViT-S/14 took 0.06 s of processor time with one thread; with two, from 0.26 to 0.8 s.

    Parameters
    ----------
    numbers : int
        How many numbers the tensors hold; from 100 million on, all threads are used.
    """
    if numbers >= _MANY_NUMBERS:
        return nullcontext()
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first call
    return _controller("openmp").limit(limits=1)


def one_blas_thread() -> Any:
    """A context manager: NumPy's linear algebra keeps to one thread.

    For small products, and for ``eigh``: on busy cores OpenBLAS's threads wait for each other, spinning, many
    times as long as they work.
    """
    return _controller("blas").limit(limits=1)


@cache
def _controller(kind: str) -> Any:
    """What governs the libraries of a kind that are loaded when it is first asked for."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api=kind)
